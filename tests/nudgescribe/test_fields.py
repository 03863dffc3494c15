from datetime import date
from decimal import Decimal
from string import ascii_letters
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe import fields
from nudgescribe.contract import FieldType, WorkspaceField


def field(field_type: FieldType, field_format: str | None = None, **changes: Any) -> WorkspaceField:
    values = {"field_id": "1", "workspace_id": "1", "field_name": "value", "display_name": "value"}
    kind = {"field_type": field_type, "field_format": field_format}
    return WorkspaceField.model_validate({**values, **kind, **changes})


ID = field("string", field_name="id", unique=True)


def codes(rule: WorkspaceField, *values: str | None) -> list[str | None]:
    """The code each value is rejected with, None where it is accepted."""
    frame = pl.DataFrame({rule.field_name: values}, schema={rule.field_name: pl.String})
    found = dict(fields.validate(frame, [rule]).errors.select("row", "code").rows())
    return [found.get(row) for row in range(len(values))]


FORMATS = st.sampled_from(list(fields.DATE_FORMATS))


def written(day: date, date_format: str) -> str:
    return pl.select(pl.lit(day).dt.strftime(fields.DATE_FORMATS[date_format])).item()


@given(st.dates(), FORMATS)
def test_date_is_accepted_in_its_own_format(day: date, name: str) -> None:
    assert codes(field("Date", name), written(day, name)) == [None]


@given(st.text(max_size=14), FORMATS)
def test_date_is_only_what_prints_back_the_same(text: str, name: str) -> None:
    if codes(field("Date", name), text) == [None] and text:
        parsed = pl.Series([text]).str.to_date(fields.DATE_FORMATS[name])
        assert parsed.dt.strftime(fields.DATE_FORMATS[name]).to_list() == [text]


DATES = [
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
]


@pytest.mark.parametrize(("name", "good", "bad"), DATES)
def test_date_format_accepts_good_and_rejects_bad_text(name: str, good: str, bad: str) -> None:
    found = codes(field("Date", name), good, bad, f"{good}\n", "٠١/٠٢/٢٠٠٣")
    assert found == [None, "date", "date", "date"]


def test_date_formats_are_these_14() -> None:
    assert [*fields.DATE_FORMATS] == [name for name, _, _ in DATES]
    assert len(DATES) == 14


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_number_accepts_every_decimal(number: Decimal) -> None:
    assert codes(field("number"), str(number)) == [None]


@given(st.text(ascii_letters + "-+. ,_", min_size=1))
def test_number_rejects_text_without_digits(text: str) -> None:
    assert codes(field("number"), text) == ["number"]


@given(st.characters(codec="utf-8", exclude_characters="\0"))
def test_char_accepts_any_single_character(one: str) -> None:
    assert codes(field("char"), one, one + one) == [None, "char"]


@given(st.integers(-(10**12), 10**12), st.sampled_from([("EUR", 2), ("JPY", 0), ("KWD", 3)]))
def test_currency_rejects_more_decimals_than_it_has(units: int, currency: tuple[str, int]) -> None:
    code, digits = currency
    amount = f"{Decimal(units).scaleb(-digits):f}"
    too_fine = f"{amount}1" if digits else f"{amount}.0"
    assert codes(field("currency", code), amount, too_fine) == [None, "currency"]


@given(st.text())
def test_string_rejects_only_nul(text: str) -> None:
    assert codes(field("string"), text) == ["nul" if "\0" in text else None]


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (field("number"), ["1.", ".5", "1 000", "٣", "0x1", "1\n", "nan"], ["number"] * 7),
        (field("number"), [None, ""], [None, None]),
        (field("char"), [None, ""], [None, None]),
        (field("Date", "yyyy-MM-dd"), [None, ""], [None, None]),
        (field("currency", "USD"), ["1e3", "$5", "1,000", "+1"], ["currency"] * 4),
        (field("currency", "USD"), [None, ""], [None, None]),
        (field("string", required=True), [None, "", "  ", "x"], ["required"] * 3 + [None]),
        (ID, ["a", "b", "a", "", None], ["duplicate", None, "duplicate", *["required"] * 2]),
        (ID, ["", ""], ["required"] * 2),
    ],
)
def test_judge_rejects_values_with_a_code(
    rule: WorkspaceField, values: list[str | None], expected: list[str | None]
) -> None:
    assert codes(rule, *values) == expected


def test_judge_rejects_identifiers_repeated_in_other_parts() -> None:
    validation = fields.validate(pl.DataFrame({"id": ["a", "b"]}), [ID], pl.Series(["b"]))
    assert validation.accepted.rows() == [("a",)]
    assert validation.errors.rows() == [(1, "id", "duplicate")]


def test_judge_counts_row_with_two_errors_once() -> None:
    rules = [field("number", field_name="n"), field("char", field_name="c")]
    validation = fields.validate(pl.DataFrame({"n": ["x", "1"], "c": ["xx", "y"]}), rules)
    assert validation.rejected_rows == 1
    assert validation.errors.rows() == [(0, "n", "number"), (0, "c", "char")]
    assert validation.accepted.rows() == [("1", "y")]


def test_reasons_cover_every_code() -> None:
    codes = {"required", "duplicate", "nul", "number", "char", "date", "currency"}
    assert codes == set(fields.REASONS)


def test_header_problems_tell_every_column() -> None:
    needed = field("string", field_name="a", required=True)
    rules = [ID, needed, field("string", field_name="b")]
    assert fields.header_problems(["id", "a"], rules) == []
    assert fields.header_problems(["b", "b", "x", "y"], rules) == [
        "columns 'id', 'a' are missing",
        "columns 3, 4 are no fields of the workspace",
        "column 'b' occurs more than once",
    ]
    assert fields.header_problems(["id", "a", "x"], rules) == [
        "column 3 is no field of the workspace"
    ]
    assert fields.header_problems(["id", "a", "x"], rules, certain=True) == [
        "column 'x' is no field of the workspace"
    ]


@pytest.mark.parametrize(
    "name", ["E-Mail ", "e-mail\u200b", "\ufeffe-mail", "e-\xadmail", "e -\nMAIL"]
)
def test_name_that_looks_like_a_field_is_told_escaped(name: str) -> None:
    rules = [ID, field("string", field_name="e-mail")]
    (problem,) = fields.header_problems(["id", name], rules)
    assert problem == f"column 2 is {name!a}, not 'e-mail'"


def test_many_header_problems_are_told_in_few_words() -> None:
    rules = [ID, *(field("string", field_name=f"f{n}", required=True) for n in range(50))]
    said = "; ".join(fields.header_problems([f"F{n}" for n in range(50)] + ["x" * 500] * 90, rules))
    assert "and 40 more" in said
    assert "and 80 more" in said
    assert len(said) < 1000


@pytest.mark.parametrize(
    ("text", "wanted", "written"),
    [
        ("2024-02-29", "dd/MM/yyyy", "29/02/2024"),
        ("2024-01-02 00:00:00", "yyyy-MM-dd", "2024-01-02"),
        ("2024-01-02 00:00:00+05:30", "yyyy-MM-dd", "2024-01-02"),
        ("2024-01-02 03:00:00", "yyyy-MM-dd", "as it was"),
        ("2024-01-02 00:00:00.5", "yyyy-MM-dd", "as it was"),
        ("2024-02-30", "dd/MM/yyyy", "?"),
        ("29/02/2024", "dd/MM/yyyy", "as it was"),
        ("1969-01-01", "dd/MM/yy", "01/01/69"),
        ("2068-12-31", "dd/MM/yy", "31/12/68"),
        ("1968-12-31", "dd/MM/yy", "?"),
        ("2069-01-01", "dd/MM/yy", "?"),
        (None, "dd/MM/yy", "as it was"),
    ],
)
def test_write_dates_knows_days_and_midnights(text: str | None, wanted: str, written: str) -> None:
    value = pl.lit(text, pl.String)
    assert (
        pl.select(fields.write_dates(value, wanted, otherwise=pl.lit("as it was"))).item()
        == written
    )


@given(st.dates(date(1969, 1, 1), date(2068, 12, 31)), FORMATS, FORMATS)
def test_reformat_dates_keeps_the_day(day: date, given: str, wanted: str) -> None:
    text = fields.reformat_dates(pl.lit(written(day, given)), given, wanted)
    assert pl.select(text).item() == written(day, wanted)


@given(st.one_of(st.none(), st.text(max_size=12)), FORMATS, FORMATS)
def test_reformat_dates_makes_no_date_of_other_text(
    text: str | None, given: str, wanted: str
) -> None:
    before = codes(field("Date", given), text)
    after = pl.select(fields.reformat_dates(pl.lit(text, pl.String), given, wanted)).item()
    same = codes(field("Date", wanted), after) == before
    assert same or (before == [None] and given != wanted)


NO_DATE, KEPT = "?", [None, "", "  ", "\0", "2024-01-02\0"]


@pytest.mark.parametrize(
    ("given", "text", "wanted", "expected"),
    [
        # What a lenient parser accepts.
        ("yyyy-MM-dd", "2024-1-2", "dd.MM.yyyy", NO_DATE),
        ("yyyy-MM-dd", "24-01-02", "dd.MM.yyyy", NO_DATE),
        ("yyyy-MM-dd", "0000-01-02", "dd.MM.yyyy", NO_DATE),
        ("dd/MM/yyyy", " 01/02/2024", "dd.MM.yyyy", NO_DATE),
        ("dd/MM/yy", "1/2/24", "dd.MM.yyyy", NO_DATE),
        ("MMM dd, yyyy", "feb 01, 2003", "dd.MM.yyyy", NO_DATE),
        ("dd MMM yyyy", "01  Feb 2003", "dd.MM.yyyy", NO_DATE),
        # A year beyond two digits.
        ("yyyy-MM-dd", "1850-01-02", "dd/MM/yy", NO_DATE),
        ("yyyy-MM-dd", "1999-01-02", "dd/MM/yy", "02/01/99"),
        # Blank text and NUL are kept.
        *(("yyyy-MM-dd", text, "dd.MM.yyyy", text) for text in KEPT),
    ],
)
def test_reformat_dates_refuses_other_text_and_keeps_blank(
    given: str, text: str | None, wanted: str, expected: str | None
) -> None:
    value = pl.lit(text, pl.String)
    assert pl.select(fields.reformat_dates(value, given, wanted)).item() == expected


@pytest.mark.parametrize("name", ["*", "^.*$", "a b", "ä"])
def test_judge_accepts_any_field_name(name: str) -> None:
    rules = [field("number", field_name=name), ID]
    frame = pl.DataFrame({"id": ["1", "2"], name: ["1", "x"]})
    assert fields.validate(frame, rules).errors.rows() == [(1, name, "number")]


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
