"""Dates in digits, checked by their bytes, against a pattern and Python's own calendar."""

import re
from contextlib import suppress
from datetime import datetime

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nudgescribe.digit_dates import are_dates, in_digits
from nudgescribe.fields import DATE_FORMATS

NOTATIONS = [notation for notation in DATE_FORMATS.values() if in_digits(notation)]
PATTERNS = {"%Y": "[0-9]{4}", "%y": "[0-9]{2}", "%m": "[0-9]{2}", "%d": "[0-9]{2}", ".": r"\."}
YEARS = st.sampled_from([0, 1, 4, 100, 1900, 1969, 2000, 2023, 2024, 2068, 9999])
NUMBERS = st.tuples(YEARS, st.integers(0, 13), st.integers(0, 32))


def is_date(text: str | None, notation: str) -> bool:
    pattern = notation
    for part, written in PATTERNS.items():
        pattern = pattern.replace(part, written)
    if text is None or not re.fullmatch(pattern, text):
        return False
    with suppress(ValueError):
        datetime.strptime(text, notation)
        return True
    return False


def test_formats_in_digits_are_those_without_names_of_months() -> None:
    named = [name for name, notation in DATE_FORMATS.items() if not in_digits(notation)]
    assert named == ["dd MMM yyyy", "MMM dd, yyyy", "MMMM dd, yyyy", "dd MMMM yyyy"]


@pytest.mark.parametrize("notation", NOTATIONS)
@given(data=st.data())
def test_dates_are_those_of_the_calendar(notation: str, data: st.DataObject) -> None:
    texts: list[str | None] = []
    for year, month, day in data.draw(st.lists(NUMBERS, max_size=20)):
        parts = {"%Y": f"{year:04}", "%y": f"{year % 100:02}", "%m": f"{month:02}"}
        text = notation.replace("%d", f"{day:02}")
        for part, written in parts.items():
            text = text.replace(part, written)
        place = data.draw(st.integers(0, len(text) - 1))
        changed = data.draw(st.sampled_from(["", text[place], " ", "+", "/", "0", "\0", "é", "٣"]))
        texts.append(text[:place] + changed + text[place + 1 :])
    texts += data.draw(st.lists(st.none() | st.text(max_size=10), max_size=5))
    column = pl.Series(["x", *texts], dtype=pl.String())[1:]
    assert are_dates(column, notation).to_list() == [is_date(text, notation) for text in texts]


@given(st.integers(1, 9999))
@example(1900)
@example(2000)
def test_each_day_of_a_year_is_a_date_and_no_other(year: int) -> None:
    texts = [f"{year:04}-{month:02}-{day:02}" for month in range(15) for day in range(34)]
    found = are_dates(pl.Series(texts), "%Y-%m-%d").to_list()
    assert found == [is_date(text, "%Y-%m-%d") for text in texts]
