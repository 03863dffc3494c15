"""Parquet files: damage, times that polars cannot hold, types without a text, encryption."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from blocks import FileCrm
from blocks.crm.errors import SourceError
from tests.cases.judging import CASES, judged, refused, refused_or

PARQUET = CASES / "parquet"
SILENT = "fewer rows than the file has, without a word"
RAW = "a raw error of a library"
CRASHED = "a panic: the flow run ends Crashed"


def listed(file: str) -> FileCrm:
    return FileCrm(path=str(PARQUET / file), format="parquet")


def plain(text: str | None) -> str | None:
    """A time without zeros that say nothing."""
    return text and re.sub(r"\.?0+$", "", text) if text and "." in text else text


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("one_bit_damaged.parquet", []),
        ("public/broken-arrow.parquet", []),
        ("public/rle_malicious_bitwidth.parquet", []),
        ("public/parquet_column_num_values_mismatch.parquet", []),
        ("public/broken_structure.parquet", ["damaged"]),
    ],
)
def test_damaged_file_is_refused(file: str, what: list[str]) -> None:
    refused(listed(file), Path(file).name, *what)


def test_damaged_file_among_others_is_refused(tmp_path: Path) -> None:
    damaged = PARQUET / "public/parquet_column_num_values_mismatch.parquet"
    schema = parquet.read_schema(damaged)
    whole = pa.Table.from_pylist([{"x": 0, "n": 0, "s": "a"}], schema)
    parquet.write_table(whole, tmp_path / "0.parquet")
    (tmp_path / "1.parquet").write_bytes(damaged.read_bytes())
    refused(FileCrm(path=str(tmp_path / "*.parquet")), "1.parquet")


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("latin1_text.parquet", [r"\bv\b", "UTF-8"]),
        ("public/invalid_utf8_dictionary.parquet", ["X1", "UTF-8"]),
        ("damaged_page.parquet", ["damaged"]),
        ("public/issue22325_datapage_v2_negative_def_levels.parquet", ["damaged"]),
        ("public/encrypted_column.parquet", [r"column '?a\b", "encrypted"]),
    ],
)
def test_file_that_cannot_be_read_through_is_refused_when_extracted(
    file: str, what: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SourceError):
        listed(file).extract(tmp_path / "list.parquet")
    refused(listed(file), Path(file).name, *what)


def test_page_whose_header_says_a_wrong_size_is_read_as_it_was_written() -> None:
    found = judged(listed("public/ARROW-17100.parquet"))
    texts = ["".join(map(str, row)) for row in found.rows]
    assert texts == [
        "1a1a",
        "2b2a",
        "3c3a",
        "4d4b",
        "5e5b",
    ]


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("case-001.parquet", ["var"]),
        ("crs-default.parquet", ["geometry"]),
        ("uniform_encryption.parquet.encrypted", ["encrypted"]),
        ("bug13053-2.parquet", ["column"]),
    ],
)
def test_file_that_is_no_list_is_refused_in_words(file: str, what: list[str]) -> None:
    said = refused(listed(f"public/{file}"), file)
    for each in what:
        assert each in said.replace(file, "")
    assert "Error" not in said


@pytest.mark.parametrize(
    ("files", "prefixes"),
    [("part-0.parquet", "0"), ("part-*.parquet", "01")],
)
def test_days_of_many_centuries_are_the_same_of_any_number_of_files(
    files: str, prefixes: str
) -> None:
    days = ["9999-12-31 00:00:00", "0001-01-01 00:00:00"]
    found = judged(listed(f"int96/{files}"))
    assert [plain(each) for each in found.values("v")] == days * len(prefixes)
    assert found.values("customer_id") == [f"{one}{row}" for one in prefixes for row in (0, 1)]


@pytest.mark.parametrize("before", [0, 1], ids=["alone", "second file"])
def test_times_of_spark_are_read_and_what_no_calendar_has_is_told(
    before: int, tmp_path: Path
) -> None:
    source = PARQUET / "public/int96_from_spark.parquet"
    (tmp_path / "1.parquet").write_bytes(source.read_bytes())
    first = pa.table({"a": pa.array([datetime(2000, 1, 1)] * before, pa.timestamp("us"))})
    if before:
        parquet.write_table(first, tmp_path / "0.parquet", use_deprecated_int96_timestamps=True)
    found = refused_or(FileCrm(path=str(tmp_path / "*.parquet")), r"\ba\b", r"row 6\b")
    if found is not None:
        assert [plain(each) for each in found.values("a")[before:]] == [
            "2024-01-01 17:01:36.123456",
            "2024-01-01 00:00:00",
            "9999-12-31 03:00:00",
            "2024-12-31 00:00:00",
        ]
        assert [row - before for row, _, _ in found.errors] == [5, 6]


def test_times_of_many_centuries_are_those_of_pyarrow() -> None:
    file = "public/bug4903.parquet"
    table = parquet.read_table(PARQUET / file, coerce_int96_timestamp_unit="us")
    began = datetime(1970, 1, 1, tzinfo=UTC)
    right: list[str | None] = []
    for microseconds in table["dt3"].cast("int64").to_pylist():
        try:
            when = began + timedelta(microseconds=microseconds)
            right.append(when.replace(tzinfo=None).isoformat(" "))
        except OverflowError:  # before the year 1
            right.append(None)
    found = refused_or(listed(file), "dt3", "row")
    if found is None:
        return
    assert [plain(each) for each in found.values("dt3")] == [each for each in right if each]
    assert [row for row, _, _ in found.errors] == [
        row for row, each in enumerate(right, 1) if each is None
    ]


def test_fractions_of_seconds_stay() -> None:
    found = judged(listed("time.parquet")).values("v")
    assert [plain(each) for each in found] == ["09:31:38.827", "00:00:00.000001", "09:05:00"]


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("time_out_of_range.parquet", [1, 2]),
        ("date_far_away.parquet", [1]),
        ("timestamp_infinity.parquet", [1]),
    ],
)
def test_time_that_no_calendar_has_is_rejected_or_refused(file: str, rows: list[int]) -> None:
    found = refused_or(listed(file), r"\bv\b", rf"row {rows[0]}\b")
    if found is not None:
        assert [(row, name) for row, name, _ in found.errors] == [(row, "v") for row in rows]


@pytest.mark.parametrize(
    ("file", "zone", "when"),
    [
        ("plus_1000", "+10:00", "2026-01-02 10:00:00+10:00"),
        ("plus_0530", "+05:30", "2026-01-02 05:30:00+05:30"),
        ("pandas", "+05:30", "2026-01-01 10:00:00+05:30"),
        ("us_pacific_new", "US/Pacific-New", "2026-01-01 16:00:00-08:00"),
    ],
)
def test_zone_is_told_or_refused(file: str, zone: str, when: str) -> None:
    column = "when" if file == "pandas" else "v"
    found = refused_or(
        listed(f"zone_{file}.parquet"), f"zone_{file}.parquet", column, re.escape(zone)
    )
    assert found is None or found.values(column) == [when]


@pytest.mark.parametrize(
    ("file", "kind", "text"),
    [
        ("decimal256", "decimal", "1.50"),
        ("json_extension", "json", "{}"),
        ("duration", "duration", None),
    ],
)
def test_type_without_a_text_is_told_or_refused(file: str, kind: str, text: str | None) -> None:
    found = refused_or(listed(f"{file}.parquet"), r"\bv\b", kind)
    assert found is None or (text and found.values("v") == [text])


@pytest.mark.parametrize("file", ["decimal256", "json_extension", "duration"])
def test_type_that_is_not_asked_for_does_not_matter(file: str) -> None:
    assert judged(listed(f"{file}.parquet"), fields=["customer_id"]).rows == [("0",)]
