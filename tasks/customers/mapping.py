"""Field mapping: the workspace's fields and the columns of the list they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from prefect import task
from pydantic import Field, model_validator

from blocks import NudgescribeAccount
from blocks.crm.list_file import ListFile, Origin
from nudgescribe import fields
from nudgescribe.bases import Frozen, FrozenInput
from nudgescribe.contract import WorkspaceField
from nudgescribe.errors import NudgeflowError, first_ten
from nudgescribe.lazy import pl
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


class WorkspaceUnusable(NudgeflowError):
    """No list can be validated by the fields of a workspace."""

    advice = "Nothing was changed. Correct the workspace's fields, then start again."


class FieldMapping(Frozen):
    """The workspace's fields as `rules`, and by field the `sources` of those to send; without any
    source, all columns of the list are sent.
    """

    rules: list[WorkspaceField]
    sources: dict[str, FieldSource]

    @property
    def needed(self) -> frozenset[str] | None:
        """Return the columns of the list that it takes; None for all."""
        return frozenset(self._columns.values()) or None

    @property
    def key_column(self) -> str:
        """Return the column of the list that holds the customer identifiers."""
        key = fields.key_of(self.rules)
        return self._columns.get(key, key)

    def columns(self, listed: Sequence[str]) -> dict[str, str]:
        """Return by name the fields that columns of the list fill, with these. Raises
        MappingRefused.
        """
        if not self.sources:
            return {name: name for name in listed}
        missing = [column for column in self._columns.values() if column not in listed]
        if missing:
            # Without a header row the columns' names are a customer's values: never print them.
            raise MappingRefused(f"The list has no column {first_ten(missing)}.")
        return self._columns

    def expressions(self, listed: ListFile) -> dict[str, pl.Expr]:
        """Return the values of each field that is sent, dates in the workspace's format, by the
        columns of the list. Raises MappingRefused.
        """
        columns = self.columns(listed.columns)
        return {
            name: self._values(name, columns[name], listed.origins(columns[name]))
            if name in columns
            else pl.repeat(self.sources[name].constant, pl.len(), dtype=pl.String)
            for name in self.sources or columns
        }

    @property
    def _columns(self) -> dict[str, str]:
        return {
            name: source.column or name
            for name, source in self.sources.items()
            if source.constant is None
        }

    def _values(self, name: str, column: str, origins: set[Origin]) -> pl.Expr:
        rule = next((rule for rule in self.rules if rule.field_name == name), None)
        values = text = fields.column(column)
        if rule is None or rule.field_type != "Date":
            return values
        wanted, source = rule.field_format or "", self.sources.get(name)
        if source and source.date_format:
            values = fields.reformat_dates(text, source.date_format, wanted)
        if origins & {Origin.DATE, Origin.TIMESTAMP}:
            values = fields.write_dates(text, wanted, otherwise=values)
        return values


@task(**RETRIED)
def find_fields(
    account: NudgescribeAccount, workspace_id: str, sources: Mapping[str, FieldSource]
) -> FieldMapping:
    """Return the workspace's fields with their sources. Raises MappingRefused if a source is for a
    field that the workspace does not have, or a date format for one of another type;
    WorkspaceUnusable if there is no rule to validate a field by.
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
    if problems := fields.rule_problems(rules, sources):
        raise WorkspaceUnusable(f"Workspace {workspace_id}: {first_ten(problems, '; ')}.")
    return FieldMapping(rules=rules, sources=dict(sources))
