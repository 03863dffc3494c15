"""CSV files: quotes, header rows, compressions, names and lines that do not show."""

from pathlib import Path

import pytest

from blocks import FileCrm
from nudgescribe import rfc4180
from tests.cases.judging import CASES, judged, refused, refused_or

CSV = CASES / "csv"
KNOWN = ("customer_id", "email", "plan")


@pytest.mark.parametrize(
    ("file", "row"),
    [
        ("after_quote.csv", 1),
        ("backslash.csv", 1),
        ("no_quoting.tsv", 1),
        ("inches.csv", 1),
        ("unpaired_quote.csv", 2),
        ("escaping.csv", 1),
    ],
)
def test_list_with_stray_quote_is_refused_with_its_row(file: str, row: int) -> None:
    said = refused(FileCrm(path=str(CSV / file)), file, rf"row {row}\b", "quote")
    assert "cut off" not in said


def test_page_of_messages_with_text_behind_quote_is_refused() -> None:
    with pytest.raises(rfc4180.MalformedCsv, match="quote"):
        rfc4180.read(b'customer_id,message\r\n1,"ab"cd\r\n')


def test_list_that_ends_in_a_quoted_value_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('customer_id,email\n1,a\n2,"b')
    refused(FileCrm(path=str(tmp_path / "list.csv")), "list.csv", "cut off")


@pytest.mark.parametrize("folder", ["no_header_in_second", "no_header_in_second_index"])
def test_second_file_without_header_row_is_refused_without_its_values(folder: str) -> None:
    crm = FileCrm(path=str(CSV / folder / "*.csv"))
    for known in ((), KNOWN[:2]):
        said = refused(crm, "1.csv", "lacks customer_id, email|customer_id, email[.]", fields=known)
        assert "000124" not in said
        assert "ada@example.com" not in said


def test_list_without_header_row_is_refused_by_places_and_without_its_values() -> None:
    crm = FileCrm(path=str(CSV / "no_header.csv"))
    said = refused(crm, "customer_id", r"\b1\b", r"\b2\b", rules=KNOWN)
    assert "000124" not in said
    assert "ada@example.com" not in said


def test_list_with_columns_nobody_asked_for_is_refused_in_few_words(tmp_path: Path) -> None:
    names = [f"a column nobody asked for {number:06d}{'y' * 90}" for number in range(9000)]
    (tmp_path / "wide.csv").write_text(",".join(["customer_id", *names]) + "\n")
    refused(FileCrm(path=str(tmp_path / "wide.csv")), "more", rules=["customer_id"])


@pytest.mark.parametrize(
    ("file", "kind"),
    [("csv/gzip.csv", "gzip"), ("csv/bzip2.csv", "bzip2"), ("ndjson/gzip.ndjson", "gzip")],
)
def test_compressed_list_of_another_name_is_read_or_refused_as_compressed(
    file: str, kind: str
) -> None:
    listed = refused_or(FileCrm(path=str(CASES / file)), Path(file).name, "compressed", kind)
    assert listed is None or listed.accepted.height > 0


def test_workbook_named_csv_is_refused_as_a_workbook() -> None:
    said = refused(FileCrm(path=str(CSV / "excel.csv")), "excel.csv", "CSV")
    assert "zip" in said or "Excel" in said


def test_zstd_window_beyond_what_is_read_is_refused_as_such() -> None:
    said = refused(FileCrm(path=str(CSV / "window.csv.zst")), "window.csv.zst", "window")
    assert "damaged" not in said


@pytest.mark.parametrize(
    ("file", "header", "rows"),
    [
        ("sep_two.csv", None, [("1", "a")]),
        ("sep_three.csv", None, [("1", "a", "b")]),
        ("sep_no_header.csv", ["customer_id", "email"], [("1", "a")]),
    ],
)
def test_first_line_of_excel_says_the_delimiter(
    file: str, header: list[str] | None, rows: list[tuple[str, ...]]
) -> None:
    listed = judged(FileCrm(path=str(CSV / file), header=header))
    assert listed.accepted.columns == list(KNOWN[: len(rows[0])])
    assert listed.rows == rows


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("zero_width_space.csv", r"'email\u200b'"),
        ("no_break_space.csv", r"'email\xa0'"),
        ("line_end.csv", r"'e\nmail'"),
    ],
)
def test_name_with_characters_that_do_not_show_is_refused_escaped(file: str, name: str) -> None:
    assert name in refused(FileCrm(path=str(CSV / file)), rules=KNOWN[:2])


@pytest.mark.parametrize("strict", [False, True])
def test_blank_lines_are_no_rows(strict: bool) -> None:
    listed = judged(FileCrm(path=str(CSV / "blank_lines.csv")), strict=strict)
    assert (listed.rows, listed.rejected) == ([("1", "a"), ("2", "b")], 0)


def test_blank_line_of_a_list_of_one_column_is_an_empty_value(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("customer_id\n1\n\n2\n")
    listed = judged(FileCrm(path=str(tmp_path / "list.csv")))
    assert (listed.rows, listed.errors) == ([("1",), ("2",)], [(2, "customer_id", "required")])
