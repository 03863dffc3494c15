"""NDJSON files: values of several types, nested values, values as keys."""

import pytest

from blocks import FileCrm
from tests.cases.judging import CASES, judged, refused

NDJSON = CASES / "ndjson"


@pytest.mark.parametrize("kind", ["object", "struct", "bool", "null"])
@pytest.mark.parametrize("fields", [(), ("id", "v")])
def test_array_of_several_types_is_refused_with_line_and_field(
    kind: str, fields: tuple[str, ...]
) -> None:
    file = f"mixed_{kind}.ndjson"
    crm = FileCrm(path=str(NDJSON / file))
    said = refused(crm, file, "line 1: v holds a nested value", fields=fields)
    assert "Ann Miller" not in said


@pytest.mark.parametrize(
    "file",
    [
        "ndjson/nested_not_needed.ndjson",
        "parquet/nested_not_needed.parquet",
    ],
)
def test_nested_field_that_is_not_asked_for_does_not_matter(file: str) -> None:
    names = {"ndjson": ("customer_id", "plan"), "parquet": ("customer_id",)}
    listed = judged(FileCrm(path=str(CASES / file)), fields=names[file.partition("/")[0]])
    assert listed.rows[0][0] in ("0", "1")
    assert listed.accepted.height == 1


def test_nested_field_that_is_asked_for_is_refused_with_line_and_field() -> None:
    crm = FileCrm(path=str(NDJSON / "nested_not_needed.ndjson"))
    refused(crm, "nested_not_needed.ndjson", "line 1", "tags", fields=("customer_id", "tags"))


def test_key_that_is_a_value_is_not_shown() -> None:
    crm = FileCrm(path=str(NDJSON / "values_as_keys.ndjson"))
    said = refused(crm, r"\b2\b", rules=("customer_id", "plan"))
    assert "ada@example.com" not in said
