"""Field mapping: the workspace's fields and the columns of the list they come from."""

from collections.abc import Mapping
from typing import Self

import polars as pl
from prefect import task
from pydantic import Field, model_validator

from blocks import NudgescribeAccount
from nudgescribe import fields
from nudgescribe.bases import Frozen, FrozenInput
from nudgescribe.contract import WorkspaceField
from nudgescribe.errors import NudgeflowError, first_ten
from tasks.policies import RETRIED


class FieldSource(FrozenInput):
    """Where the values of one field come from."""

    column: str | None = Field(
        default=None, description="Column of the list; by default the one of the field's name."
    )
    constant: str | None = Field(
        default=None, description="The same value for all customers, instead of a column."
    )
    date_format: str | None = Field(
        default=None,
        description="Date format of the column; by default the workspace's.",
        json_schema_extra={"enum": [*fields.DATE_FORMATS, None]},
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.constant is not None and (self.column or self.date_format):
            raise ValueError("a constant stands alone, without column and date_format")
        if self.date_format is not None and self.date_format not in fields.DATE_FORMATS:
            raise ValueError(f"date_format is one of {', '.join(fields.DATE_FORMATS)}")
        return self


class MappingRefused(NudgeflowError):
    """The field mapping names a field or a column that does not exist."""

    advice = "Nothing was changed. Correct options.fields, then start again."


class FieldMapping(Frozen):
    """The workspace's fields as `rules`, and by field the `sources` of those to send; without any
    source, all columns of the list are sent.
    """

    rules: list[WorkspaceField]
    sources: dict[str, FieldSource]

    def rename(self, listed: pl.LazyFrame) -> pl.LazyFrame:
        """Return the list with the fields' names for its columns. Raises MappingRefused."""
        if not self.sources:
            return listed
        columns = listed.collect_schema().names()
        wanted = {
            name: source.column or name
            for name, source in self.sources.items()
            if source.constant is None
        }
        missing = [column for column in wanted.values() if column not in columns]
        if missing:
            # Without a header row the columns' names are a customer's values: never print them.
            raise MappingRefused(
                f"The list has no column {first_ten(missing)}, of {len(columns)} columns in all."
            )
        return listed.select(
            fields.column(wanted[name]).alias(name)
            if name in wanted
            else pl.lit(source.constant).alias(name)
            for name, source in self.sources.items()
        )

    def as_text(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Return a batch of the renamed list as text; columns with a date format of their own get
        the workspace's.
        """
        formats = {rule.field_name: rule.field_format or "" for rule in self.rules}
        dated = {
            name: source.date_format
            for name, source in self.sources.items()
            if source.date_format and name in batch.columns and not batch.schema[name].is_temporal()
        }
        return fields.as_text(batch, self.rules).with_columns(
            fields.reformat_dates(fields.column(name), date_format, formats[name]).alias(name)
            for name, date_format in dated.items()
        )


@task(**RETRIED)
def find_fields(
    account: NudgescribeAccount, workspace_id: str, sources: Mapping[str, FieldSource]
) -> FieldMapping:
    """Return the workspace's fields with their sources. Raises MappingRefused if a source is for a
    field that the workspace does not have, or a date format for one of another type.
    """
    with account.get_client() as client:
        rules = client.list_fields(workspace_id)
    types = {rule.field_name: rule.field_type for rule in rules}
    unknown = [name for name in sources if name not in types]
    if unknown:
        raise MappingRefused(f"The workspace has no field {first_ten(unknown)}.")
    dated = [name for name, source in sources.items() if source.date_format]
    undated = [name for name in dated if types[name] != "Date"]
    if undated:
        raise MappingRefused(f"A date format is for fields of type Date, not {first_ten(undated)}.")
    return FieldMapping(rules=rules, sources=dict(sources))
