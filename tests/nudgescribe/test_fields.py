from datetime import date, datetime
from decimal import Decimal
from string import ascii_letters
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe import fields
from nudgescribe.contract import FieldType, WorkspaceField


def field(
    field_type: FieldType,
    field_format: str | None = None,
    *,
    name: str = "value",
    required: bool = False,
    unique: bool = False,
) -> WorkspaceField:
    return WorkspaceField(
        field_id="1",
        workspace_id="1",
        field_name=name,
        display_name=name,
        field_type=field_type,
        field_format=field_format,
        required=required,
        unique=unique,
    )


def codes(rule: WorkspaceField, *values: str | None) -> list[str | None]:
    """The code each value is rejected with, None where it is accepted."""
    frame = pl.DataFrame({"value": values}, schema={"value": pl.String})
    found = dict(fields.judge(frame, [rule]).errors.select("row", "code").rows())
    return [found.get(row) for row in range(len(values))]


@given(st.dates(), st.sampled_from(list(fields.DATE_FORMATS)))
def test_date_is_accepted_in_its_own_format(day: date, name: str) -> None:
    text = pl.select(pl.lit(day).dt.strftime(fields.DATE_FORMATS[name])).item()
    assert codes(field("Date", name), text) == [None]


@given(st.text(max_size=14), st.sampled_from(list(fields.DATE_FORMATS)))
def test_date_is_only_what_prints_back_the_same(text: str, name: str) -> None:
    if codes(field("Date", name), text) == [None] and text:
        parsed = pl.Series([text]).str.to_date(fields.DATE_FORMATS[name])
        assert parsed.dt.strftime(fields.DATE_FORMATS[name]).to_list() == [text]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("yyyy-MM-dd", "2024-02-29", "2023-02-29"),
        ("dd/MM/yyyy", "31/12/1999", "31/02/2024"),
        ("MM/dd/yyyy", "12/31/1999", "31/12/1999"),
        ("dd-MM-yyyy", "01-01-0001", "01-01-0000"),
        ("MM-dd-yyyy", "02-29-2000", "02-29-1900"),
        ("dd.MM.yyyy", "01.02.2003", "01x02x2003"),
        ("yyyy/MM/dd", "2003/02/01", "03/02/01"),
        ("dd MMM yyyy", "01 Feb 2003", "01 February 2003"),
        ("MMM dd, yyyy", "Feb 01, 2003", "feb 01, 2003"),
        ("MMMM dd, yyyy", "February 01, 2003", "Feb 01, 2003"),
        ("dd MMMM yyyy", "01 May 2003", "1 May 2003"),
        ("yy/MM/dd", "00/02/29", "01/02/29"),
        ("dd/MM/yy", "29/02/24", " 29/02/24"),
        ("MM/dd/yy", "12/31/69", "12/31/1969"),
    ],
)
def test_date_format_accepts_good_and_rejects_bad_text(name: str, good: str, bad: str) -> None:
    assert codes(field("Date", name), good, bad, f"{good}\n", "٠١/٠٢/٢٠٠٣") == [
        None,
        "date",
        "date",
        "date",
    ]


def test_date_formats_are_14() -> None:
    assert len(fields.DATE_FORMATS) == 14


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_number_accepts_every_decimal(number: Decimal) -> None:
    assert codes(field("number"), str(number)) == [None]


@given(st.text(ascii_letters + "-+. ,_", min_size=1))
def test_number_rejects_text_without_digits(text: str) -> None:
    assert codes(field("number"), text) == ["number"]


def test_number_rejects_what_only_looks_like_one() -> None:
    assert codes(field("number"), "1.", ".5", "1 000", "٣", "0x1", "1\n", "nan") == ["number"] * 7


@given(st.characters(codec="utf-8", exclude_characters="\0"))
def test_char_accepts_any_single_character(one: str) -> None:
    assert codes(field("char"), one, one + one) == [None, "char"]


@given(st.integers(-(10**12), 10**12), st.sampled_from([("EUR", 2), ("JPY", 0), ("KWD", 3)]))
def test_currency_rejects_more_decimals_than_it_has(units: int, currency: tuple[str, int]) -> None:
    code, digits = currency
    amount = f"{Decimal(units).scaleb(-digits):f}"
    too_fine = f"{amount}1" if digits else f"{amount}.0"
    assert codes(field("currency", code), amount, too_fine) == [None, "currency"]


def test_currency_rejects_signs_and_separators() -> None:
    assert codes(field("currency", "USD"), "1e3", "$5", "1,000", "+1", "") == ["currency"] * 4 + [
        None
    ]


@given(st.text())
def test_string_rejects_only_nul(text: str) -> None:
    assert codes(field("string"), text) == ["nul" if "\0" in text else None]


def test_required_field_rejects_blank_value() -> None:
    assert codes(field("string", required=True), None, "", "  ", "x") == ["required"] * 3 + [None]


def test_optional_field_accepts_no_value() -> None:
    for rule in (field("number"), field("char"), field("Date", "yyyy-MM-dd")):
        assert codes(rule, None, "") == [None, None]


def test_judge_rejects_every_copy_of_an_identifier() -> None:
    rule = field("string", unique=True)
    assert codes(rule, "a", "b", "a", "", None) == [
        "duplicate",
        None,
        "duplicate",
        "required",
        "required",
    ]


def test_judge_rejects_identifiers_repeated_in_other_parts() -> None:
    rule = field("string", unique=True)
    frame = pl.DataFrame({"value": ["a", "b"]})
    verdict = fields.judge(frame, [rule], pl.Series(["b"]))
    assert verdict.accepted.rows() == [("a",)]
    assert verdict.errors.rows() == [(1, "value", "duplicate")]


def test_judge_counts_row_with_two_errors_once() -> None:
    rules = [field("number", name="n"), field("char", name="c")]
    verdict = fields.judge(pl.DataFrame({"n": ["x", "1"], "c": ["xx", "y"]}), rules)
    assert verdict.rejected_rows == 1
    assert verdict.errors.rows() == [(0, "n", "number"), (0, "c", "char")]
    assert verdict.accepted.rows() == [("1", "y")]


def test_reasons_cover_every_code() -> None:
    assert {"required", "duplicate", "nul", "number", "char", "date", "currency"} == set(
        fields.REASONS
    )


def test_header_problems_name_every_column() -> None:
    rules = [
        field("string", name="id", unique=True),
        field("string", name="a", required=True),
        field("string", name="b"),
    ]
    assert fields.header_problems(["id", "a"], rules) == []
    assert fields.header_problems(["b", "b", "x"], rules) == [
        "column 'id' is missing",
        "column 'a' is missing",
        "column 'x' is not a field of the workspace",
        "column 'b' occurs more than once",
    ]


def test_type_problems_name_nested_and_binary_columns() -> None:
    frame = pl.DataFrame({"id": ["1"], "tags": [["a"]], "photo": [b"x"], "n": [None]})
    assert fields.type_problems(frame.schema) == [
        "column 'tags' holds List(String), not text",
        "column 'photo' holds Binary, not text",
    ]


def test_as_text_writes_dates_in_the_fields_format() -> None:
    rules = [
        field("string", name="id", unique=True),
        field("Date", "dd/MM/yyyy", name="born"),
        field("string", name="seen"),
        field("number", name="n"),
    ]
    frame = pl.DataFrame(
        {
            "id": [7, 8],
            "born": [date(2024, 2, 29), None],
            "seen": [date(2024, 1, 2), None],
            "n": [1.5, None],
        }
    )
    assert fields.as_text(frame, rules).rows() == [
        ("7", "29/02/2024", "2024-01-02", "1.5"),
        ("8", None, None, None),
    ]


def test_as_text_writes_no_date_where_format_cannot_express_it() -> None:
    rules = [field("Date", "dd/MM/yy", name="short"), field("Date", "yyyy-MM-dd", name="at")]
    midnight, berlin = datetime(2024, 1, 2), ZoneInfo("Europe/Berlin")
    frame = pl.DataFrame(
        {
            "short": [date(1969, 1, 1), date(2068, 12, 31), date(1968, 12, 31), date(2069, 1, 1)],
            "at": [midnight, midnight, datetime(2024, 1, 2, 3), None],
        }
    )
    text = fields.as_text(frame, rules)
    assert text["short"].to_list()[:2] == ["01/01/69", "31/12/68"]
    assert text["at"].to_list()[:2] == ["2024-01-02", "2024-01-02"]
    assert text["at"][3] is None
    errors = fields.judge(text, rules).errors.rows()
    assert errors == [(2, "short", "date"), (2, "at", "date"), (3, "short", "date")]
    there = frame.with_columns(pl.col("at").dt.replace_time_zone(berlin.key))
    assert fields.as_text(there, rules).equals(text)


FORMATS = st.sampled_from(list(fields.DATE_FORMATS))


@given(st.dates(date(1969, 1, 1), date(2068, 12, 31)), FORMATS, FORMATS)
def test_reformat_dates_keeps_the_day(day: date, given: str, wanted: str) -> None:
    def written(date_format: str) -> str:
        return pl.select(pl.lit(day).dt.strftime(fields.DATE_FORMATS[date_format])).item()

    text = pl.select(fields.reformat_dates(pl.lit(written(given)), given, wanted)).item()
    assert text == written(wanted)


@given(st.one_of(st.none(), st.text(max_size=12)), FORMATS, FORMATS)
def test_reformat_dates_makes_no_date_of_other_text(
    text: str | None, given: str, wanted: str
) -> None:
    before, rule = codes(field("Date", given), text), field("Date", wanted)
    frame = pl.DataFrame({"value": [text]}, schema={"value": pl.String})
    after = frame.select(
        fields.reformat_dates(pl.col("value"), given, wanted).alias("value")
    ).item()
    assert codes(rule, after) == before or (before == [None] and given != wanted)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("yyyy-MM-dd", "2024-1-2"),
        ("yyyy-MM-dd", "24-01-02"),
        ("yyyy-MM-dd", "0000-01-02"),
        ("dd/MM/yyyy", " 01/02/2024"),
        ("dd/MM/yy", "1/2/24"),
        ("MMM dd, yyyy", "feb 01, 2003"),
        ("dd MMM yyyy", "01  Feb 2003"),
    ],
)
def test_reformat_dates_refuses_what_a_lenient_parser_accepts(given: str, text: str) -> None:
    assert pl.select(fields.reformat_dates(pl.lit(text), given, "dd.MM.yyyy")).item() == "?"


@pytest.mark.parametrize("text", [None, "", "  ", "\0", "2024-01-02\0"])
def test_reformat_dates_keeps_blank_text_and_nul(text: str | None) -> None:
    value = pl.lit(text, pl.String)
    assert pl.select(fields.reformat_dates(value, "yyyy-MM-dd", "dd.MM.yyyy")).item() == text


def test_reformat_dates_refuses_year_beyond_two_digits() -> None:
    text = pl.Series("value", ["1850-01-02", "1999-01-02"])
    expression = fields.reformat_dates(pl.col("value"), "yyyy-MM-dd", "dd/MM/yy")
    assert text.to_frame().select(expression).to_series().to_list() == ["?", "02/01/99"]


@pytest.mark.parametrize("name", ["*", "^.*$", "a b", "ä"])
def test_judge_accepts_any_field_name(name: str) -> None:
    rules = [field("number", name=name), field("string", name="id", unique=True)]
    frame = pl.DataFrame({"id": ["1", "2"], name: ["1", "x"]})
    assert fields.judge(fields.as_text(frame, rules), rules).errors.rows() == [(1, name, "number")]


@pytest.mark.parametrize(
    ("field_type", "field_format", "fits"),
    [
        ("Date", "yyyy-MM-dd", True),
        ("Date", "yyyy", False),
        ("Date", None, False),
        ("currency", "EUR", True),
        ("currency", "XXX", False),
        ("currency", "EURO", False),
        ("string", None, True),
        ("number", "0.00", False),
    ],
)
def test_format_problem_tells_formats_that_fit_no_type(
    field_type: str, field_format: str | None, fits: bool
) -> None:
    assert (fields.format_problem(field_type, field_format) is None) == fits
