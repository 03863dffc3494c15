from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from pydantic import ValidationError

from blocks.crm.list_file import ListFile, ListWriter
from nudgescribe.contract import FieldType, WorkspaceField
from tasks.customers.mapping import FieldMapping, FieldSource, MappingRefused, find_fields
from tests.conftest import Company
from tests.tasks.conftest import Local

Sources = Mapping[str, FieldSource]
Mapped = Callable[..., pl.DataFrame]


def rule(name: str, field_type: FieldType, field_format: str | None = None) -> WorkspaceField:
    return WorkspaceField(
        field_id=name,
        workspace_id="W",
        field_name=name,
        display_name=name,
        field_type=field_type,
        field_format=field_format,
    )


@pytest.fixture
def mapped(tmp_path: Path) -> Mapped:
    """The values of the fields that a list gives."""

    def values(
        listed: pa.Table, sources: Sources, rules: Sequence[WorkspaceField] = ()
    ) -> pl.DataFrame:
        with ListWriter(tmp_path / "list", needed=None) as writer:
            for batch in listed.to_batches():
                writer.write(batch)
        file = ListFile(tmp_path / "list")
        expressions = FieldMapping(rules=[*rules], sources=sources).expressions(file)
        (frame,) = file.frames(1000)
        return frame.select(value.alias(name) for name, value in expressions.items())

    return values


def test_thousands_of_missing_columns_are_told_in_short() -> None:
    mapping = FieldMapping(rules=[], sources={f"field {n}": FieldSource() for n in range(5000)})
    with pytest.raises(MappingRefused, match="field 9 and 4,990 more"):
        mapping.columns(["Id"])


def test_mapping_renames_omits_and_adds_columns(mapped: Mapped) -> None:
    listed = pa.table({"Id": ["01", "02"], "*": ["a", None], "secret": ["x", "y"]})
    sources = {
        "id": FieldSource(column="Id"),
        "*": FieldSource(),
        "land": FieldSource(constant="DE"),
        "secret": FieldSource(constant=""),
    }
    assert mapped(listed, sources).rows(named=True) == [
        {"id": "01", "*": "a", "land": "DE", "secret": ""},
        {"id": "02", "*": None, "land": "DE", "secret": ""},
    ]


def test_mapping_of_constants_keeps_the_number_of_rows(mapped: Mapped) -> None:
    listed = pa.table({"Id": ["01", "02"]})
    assert mapped(listed, {"a": FieldSource(constant="x")}).rows() == [("x",), ("x",)]


def test_mapping_without_sources_takes_all_columns(mapped: Mapped) -> None:
    mapping = FieldMapping(rules=[], sources={})
    assert mapping.needed is None
    assert mapped(pa.table({"a": ["1"]}), {}).rows(named=True) == [{"a": "1"}]


def test_mapping_needs_the_columns_of_its_sources() -> None:
    sources = {"a": FieldSource(column="A"), "b": FieldSource(), "c": FieldSource(constant="x")}
    assert FieldMapping(rules=[], sources=sources).needed == {"A", "b"}


def test_mapping_names_missing_column() -> None:
    mapping = FieldMapping(rules=[], sources={"name": FieldSource(column="Nme")})
    with pytest.raises(MappingRefused, match="no column Nme"):
        mapping.columns(["Id", "Name"])


def test_mapping_converts_dates_to_workspace_format(mapped: Mapped) -> None:
    rules = [rule("text", "Date", "dd.MM.yyyy"), rule("typed", "Date", "dd.MM.yyyy")]
    listed = pa.table(
        {"text": ["02/13/2024", "13/02/2024", "", None], "typed": [date(2024, 2, 13)] * 4}
    )
    source = FieldSource(date_format="MM/dd/yyyy")
    text = mapped(listed, {"text": source, "typed": source}, rules)
    assert text["text"].to_list() == ["13.02.2024", "?", "", None]
    assert set(text["typed"]) == {"13.02.2024"}


def test_date_of_a_text_column_is_in_the_format_of_its_field(mapped: Mapped) -> None:
    rules = [rule("born", "Date", "dd.MM.yyyy")]
    listed = pa.table({"born": ["2024-02-13"]})
    assert mapped(listed, {}, rules).item() == "2024-02-13"  # which the rules reject


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
