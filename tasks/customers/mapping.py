"""The workspace's fields, and which columns of the list they come from."""

from collections.abc import Mapping, Sequence
from typing import Self

import polars as pl
from prefect import task
from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks import NudgescribeAccount
from nudgescribe import fields
from nudgescribe.contract import WorkspaceField
from nudgescribe.errors import NudgeflowError
from tasks.policies import READ


class FieldSource(BaseModel):
    """Where one field's values come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = Field(
        default=None, description="Column of the list; the one of the field's name by default."
    )
    constant: str | None = Field(
        default=None, description="The same value for all customers, in place of a column."
    )
    date_format: str | None = Field(
        default=None,
        description="How the column writes dates; as the workspace does by default.",
        json_schema_extra={"enum": [*fields.DATE_FORMATS, None]},
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.constant is not None and (self.column or self.date_format):
            raise ValueError("a constant stands alone, without column and date_format")
        if self.date_format is not None and self.date_format not in fields.DATE_FORMATS:
            raise ValueError(f"date_format is one of {', '.join(fields.DATE_FORMATS)}")
        return self


FieldSources = Mapping[str, FieldSource]
"""By field. If there are any, they name every field that is sent; none stand for all columns."""


class MappingRefused(NudgeflowError):
    advice = "Nothing was changed. Correct options.fields, then start again."


@task(**READ)
def find_fields(
    account: NudgescribeAccount, workspace_id: str, sources: FieldSources
) -> list[WorkspaceField]:
    """The workspace's fields, which `sources` must fit. Raises MappingRefused."""
    with account.get_client() as client:
        rules = client.list_fields(workspace_id)
    types = {rule.field_name: rule.field_type for rule in rules}
    unknown = [name for name in sources if name not in types]
    if unknown:
        raise MappingRefused(f"The workspace has no field {', '.join(unknown)}.")
    dated = [name for name, source in sources.items() if source.date_format]
    undated = [name for name in dated if types[name] != "Date"]
    if undated:
        raise MappingRefused(f"A date format is for fields of type Date, not {', '.join(undated)}.")
    return rules


def mapped(list_: pl.LazyFrame, sources: FieldSources) -> pl.LazyFrame:
    """The list with the fields' names for its columns. Raises MappingRefused."""
    if not sources:
        return list_
    columns = list_.collect_schema().names()
    wanted = {
        name: source.column or name for name, source in sources.items() if source.constant is None
    }
    missing = [column for column in wanted.values() if column not in columns]
    if missing:
        # Those it has may be a customer's values, if it has no header row: they are not told.
        raise MappingRefused(
            f"The list has no column {', '.join(missing)}, of {len(columns)} columns in all."
        )
    return list_.select(
        fields.column(wanted[name]).alias(name)
        if name in wanted
        else pl.lit(source.constant).alias(name)
        for name, source in sources.items()
    )


def as_text(
    frame: pl.DataFrame, sources: FieldSources, rules: Sequence[WorkspaceField]
) -> pl.DataFrame:
    """A part of a mapped list as text, dates in the workspace's formats where they are dates."""
    formats = {rule.field_name: rule.field_format or "" for rule in rules}
    return fields.as_text(frame, rules).with_columns(
        fields.reformat_dates(fields.column(name), source.date_format, formats[name]).alias(name)
        for name, source in sources.items()
        if source.date_format and name in frame.columns and not frame.schema[name].is_temporal()
    )
