from datetime import date

import polars as pl
import pytest
from pydantic import ValidationError

from nudgescribe.contract import FieldType, WorkspaceField
from tasks.customers.mapping import FieldMapping, FieldSource, MappingRefused, find_fields
from tests.conftest import Company
from tests.tasks.conftest import Local


def rule(name: str, field_type: FieldType, field_format: str | None = None) -> WorkspaceField:
    return WorkspaceField(
        field_id=name,
        workspace_id="W",
        field_name=name,
        display_name=name,
        field_type=field_type,
        field_format=field_format,
    )


def renamed(listed: pl.LazyFrame, sources: dict[str, FieldSource]) -> pl.LazyFrame:
    return FieldMapping(rules=[], sources=sources).rename(listed)


def test_thousands_of_missing_columns_are_told_in_short() -> None:
    sources = {f"field {number}": FieldSource() for number in range(5000)}
    with pytest.raises(MappingRefused, match="field 9 and 4,990 more, of 1 columns in all"):
        renamed(pl.LazyFrame({"Id": ["01"]}), sources)


def test_mapping_renames_omits_and_adds_columns() -> None:
    listed = pl.LazyFrame({"Id": ["01", "02"], "*": ["a", None], "secret": ["x", "y"]})
    sources = {
        "id": FieldSource(column="Id"),
        "*": FieldSource(),
        "land": FieldSource(constant="DE"),
        "secret": FieldSource(constant=""),
    }
    assert renamed(listed, sources).collect().rows(named=True) == [
        {"id": "01", "*": "a", "land": "DE", "secret": ""},
        {"id": "02", "*": None, "land": "DE", "secret": ""},
    ]


def test_mapping_keeps_list_without_sources() -> None:
    listed = pl.LazyFrame({"a": ["1"]})
    assert renamed(listed, {}) is listed


def test_mapping_names_missing_column() -> None:
    with pytest.raises(MappingRefused, match="no column Nme, of 2 columns in all"):
        FieldMapping(rules=[], sources={"name": FieldSource(column="Nme")}).rename(
            pl.LazyFrame({"Id": [1], "Name": [2]})
        )


def test_mapping_converts_dates_to_workspace_format() -> None:
    rules = [rule("text", "Date", "dd.MM.yyyy"), rule("typed", "Date", "dd.MM.yyyy")]
    frame = pl.DataFrame(
        {"text": ["02/13/2024", "13/02/2024", "", None], "typed": [date(2024, 2, 13)] * 4}
    )
    source = FieldSource(date_format="MM/dd/yyyy")
    text = FieldMapping(rules=rules, sources={"text": source, "typed": source}).as_text(frame)
    assert text["text"].to_list() == ["13.02.2024", "?", "", None]
    assert set(text["typed"]) == {"13.02.2024"}


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({"shoe_size": FieldSource(), "hat": FieldSource(constant="x")}, "no field shoe_size, hat"),
        ({"plan": FieldSource(date_format="yyyy-MM-dd")}, "fields of type Date, not plan"),
    ],
)
def test_mapping_is_refused_when_it_does_not_fit_workspace(
    company: Company, local: Local, sources: dict[str, FieldSource], problem: str
) -> None:
    with pytest.raises(MappingRefused, match=f"{problem}.*options.fields"):
        find_fields.fn(local.account, company.seeded.workspace_id, sources)


@pytest.mark.parametrize(
    "wrong",
    [
        {"column": "a", "constant": "b"},
        {"constant": "b", "date_format": "yyyy-MM-dd"},
        {"date_format": "YYYY"},
        {"expression": "a + b"},
    ],
)
def test_field_source_refuses_contradictions(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        FieldSource.model_validate(wrong)
