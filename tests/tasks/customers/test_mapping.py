from datetime import date

import polars as pl
import pytest
from pydantic import ValidationError

from nudgescribe.contract import FieldType, WorkspaceField
from tasks.customers.mapping import FieldSource, MappingRefused, as_text, find_fields, mapped
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


def test_columns_are_renamed_left_out_and_added() -> None:
    listed = pl.LazyFrame({"Id": ["01", "02"], "*": ["a", None], "secret": ["x", "y"]})
    sources = {
        "id": FieldSource(column="Id"),
        "*": FieldSource(),
        "land": FieldSource(constant="DE"),
        "secret": FieldSource(constant=""),
    }
    assert mapped(listed, sources).collect().rows(named=True) == [
        {"id": "01", "*": "a", "land": "DE", "secret": ""},
        {"id": "02", "*": None, "land": "DE", "secret": ""},
    ]


def test_without_a_mapping_the_columns_are_the_fields() -> None:
    listed = pl.LazyFrame({"a": ["1"]})
    assert mapped(listed, {}) is listed


def test_a_column_that_the_list_lacks_is_named() -> None:
    with pytest.raises(MappingRefused, match="no column Nme, of 2 columns in all"):
        mapped(pl.LazyFrame({"Id": [1], "Name": [2]}), {"name": FieldSource(column="Nme")})


def test_dates_are_written_as_the_workspace_does() -> None:
    rules = [rule("text", "Date", "dd.MM.yyyy"), rule("typed", "Date", "dd.MM.yyyy")]
    frame = pl.DataFrame(
        {"text": ["02/13/2024", "13/02/2024", "", None], "typed": [date(2024, 2, 13)] * 4}
    )
    source = FieldSource(date_format="MM/dd/yyyy")
    text = as_text(frame, {"text": source, "typed": source}, rules)
    assert text["text"].to_list() == ["13.02.2024", "?", "", None]
    assert set(text["typed"]) == {"13.02.2024"}


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({"shoe_size": FieldSource(), "hat": FieldSource(constant="x")}, "no field shoe_size, hat"),
        ({"plan": FieldSource(date_format="yyyy-MM-dd")}, "fields of type Date, not plan"),
    ],
)
def test_a_mapping_that_does_not_fit_the_workspace_is_refused(
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
def test_a_source_is_one_thing(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        FieldSource.model_validate(wrong)
