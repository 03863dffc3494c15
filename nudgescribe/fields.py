"""The rules of customer lists: required and unique fields, five types, 14 date formats.

All rules are polars expressions over text columns. The tasks and the sandbox share them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nudgescribe import identifiers
from nudgescribe.contract import WorkspaceField
from nudgescribe.digit_dates import are_dates, in_digits
from nudgescribe.errors import first_ten
from nudgescribe.identifiers import no_ids
from nudgescribe.lazy import pl, selectors
from nudgescribe.text_bytes import text_bytes

REASONS: Mapping[str, str] = {
    "required": "a value is required",
    "duplicate": "the customer identifier occurs more than once in the list",
    "nul": "the text holds a NUL character",
    "number": "not a decimal number",
    "char": "not exactly one character",
    "date": "not a calendar date in the field's format",
    "currency": "not an amount with at most the currency's decimal digits",
}
"""Error code -> what it means. No text holds a customer's value."""

# Nudgescribe's 14 date formats: the notation of its documents -> strptime's.
DATE_FORMATS: Mapping[str, str] = {
    "yyyy-MM-dd": "%Y-%m-%d",
    "dd/MM/yyyy": "%d/%m/%Y",
    "MM/dd/yyyy": "%m/%d/%Y",
    "dd-MM-yyyy": "%d-%m-%Y",
    "MM-dd-yyyy": "%m-%d-%Y",
    "dd.MM.yyyy": "%d.%m.%Y",
    "yyyy/MM/dd": "%Y/%m/%d",
    "dd MMM yyyy": "%d %b %Y",
    "MMM dd, yyyy": "%b %d, %Y",
    "MMMM dd, yyyy": "%B %d, %Y",
    "dd MMMM yyyy": "%d %B %Y",
    "yy/MM/dd": "%y/%m/%d",
    "dd/MM/yy": "%d/%m/%y",
    "MM/dd/yy": "%m/%d/%y",
}

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DATE_PARTS: Mapping[str, str] = {
    "%Y": "[0-9]{4}",
    "%y": "[0-9]{2}",
    "%m": "[0-9]{2}",
    "%d": "[0-9]{2}",
    "%b": f"(?:{'|'.join(month[:3] for month in _MONTHS)})",
    "%B": f"(?:{'|'.join(_MONTHS)})",
    ".": r"\.",
}
_YEARS: Mapping[str, tuple[int, int]] = {"%Y": (1, 9999), "%y": (1969, 2068)}
"""First and last year of a notation. Two digits are read as POSIX does: 69 is 1969, 68 is 2068."""
_NO_DATE = "?"
"""Written in place of a date that a format cannot express; no format reads it as a date."""
_DAY = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})(?: 00:00:00(?:[+-][0-9:]+)?)?\z"
_NUMBER = r"^[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\z"


class Validation(NamedTuple):
    """`accepted`: the rows without errors. `errors`: columns row (index from 0), field, code."""

    accepted: pl.DataFrame
    errors: pl.DataFrame

    @property
    def rejected_rows(self) -> int:
        """Return the number of rows with errors."""
        return self.errors["row"].n_unique()


def _no_errors() -> pl.DataFrame:
    return pl.DataFrame(
        schema={"row": pl.get_index_type(), "field": pl.String(), "code": pl.String()}
    )


def key_of(fields: Iterable[WorkspaceField]) -> str:
    """Return the name of the one unique field: the customer identifier."""
    return next(field.field_name for field in fields if field.unique)


def format_problem(field_type: str, field_format: str | None) -> str | None:
    """Return why a format does not fit a field's type, None if it does."""
    if field_type == "Date":
        return None if field_format in DATE_FORMATS else "Date needs one of the 14 date formats"
    if field_type == "currency":
        known = field_format in _currency_digits()
        return None if known else "currency needs an ISO 4217 code"
    return "only Date and currency take a format" if field_format else None


def rule_problems(fields: Sequence[WorkspaceField], sent: Collection[str]) -> list[str]:
    """Return why no list can be validated by the fields of a workspace: it has no identifier or
    several, or a format that nobody knows, for a field that is `sent` or must be.
    """
    keys = sum(field.unique for field in fields)
    problems = [] if keys == 1 else [f"{keys} unique fields, where one identifies customers"]
    for field in fields:
        problem = format_problem(field.field_type, field.field_format)
        if problem and (field.field_name in sent or field.required or field.unique):
            problems.append(f"field '{field.field_name}': {problem}")
    return problems


def header_problems(
    columns: Sequence[str], fields: Sequence[WorkspaceField], certain: bool = False
) -> list[str]:
    """Return the problems of a list's columns: missing, unknown and repeated ones.

    Unknown ones are told by number, unless it is `certain` that names are none of a customer's
    values, or the name is a field's but for case, blanks and characters that do not show.
    """
    known = {field.field_name for field in fields}
    needed = [field.field_name for field in fields if field.required or field.unique]
    missing = [name for name in needed if name not in columns]
    counts = Counter(name for name in columns if name in known)
    repeated = [name for name, count in counts.items() if count > 1]
    return [
        *(_about("is missing", "are missing", missing)),
        *(_unknown(columns, known, certain)),
        *(_about("occurs more than once", "occur more than once", repeated)),
    ]


def _about(one: str, several: str, names: Sequence[str]) -> Iterable[str]:
    if names:
        quoted = first_ten(f"'{name}'" for name in names)
        yield f"column{'s' * (len(names) > 1)} {quoted} {one if len(names) == 1 else several}"


def look_alikes(columns: Sequence[str], wanted: Collection[str]) -> dict[int, str]:
    """Return what is to be said of columns that only look like wanted ones, by their number."""
    alike = {_plain(name): name for name in wanted}
    return {
        number: f"column {number} is {name!a}, not '{alike[_plain(name)]}'"
        for number, name in enumerate(columns, 1)
        if name not in wanted and _plain(name) in alike
    }


def _unknown(columns: Sequence[str], known: Collection[str], certain: bool) -> Iterable[str]:
    """Yield the problems of columns that are no fields, by number and name."""
    meant = look_alikes(columns, known)
    if meant:
        yield first_ten(meant.values())
    rest = [
        f"'{name}'" if certain else f"{number}"
        for number, name in enumerate(columns, 1)
        if name not in known and number not in meant
    ]
    told = first_ten(rest)
    if len(rest) == 1:
        yield f"column {told} is no field of the workspace"
    elif rest:
        yield f"columns {told} are no fields of the workspace"


def _plain(name: str) -> str:
    """Return a name without what people do not see, or take for the same."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(each for each in plain if each.isprintable() and not each.isspace())


def column(name: str) -> pl.Expr:
    """Return the column of exactly this name; `pl.col` reads some names as patterns."""
    return selectors.by_name(name).as_expr()


def reformat_dates(text: pl.Expr, given: str, wanted: str) -> pl.Expr:
    """Return dates of the format `given` in the format `wanted`, two of the 14.

    Another text than a date of that format, or a year that `wanted` cannot express, becomes a text
    that no format reads as a date. Blank texts and those with a NUL are kept.
    """
    kept = text.is_null() | (text.str.strip_chars() == "") | text.str.contains("\0", literal=True)
    return pl.when(kept).then(text).otherwise(_written(_parsed(text, given), wanted))


def write_dates(text: pl.Expr, wanted: str, *, otherwise: pl.Expr) -> pl.Expr:
    """Return dates such as 2026-01-02, also with midnight and an offset behind, in the format
    `wanted`, and `otherwise` in place of other texts.
    """
    day = text.str.extract(_DAY, 1)
    written = _written(day.str.to_date("%Y-%m-%d", strict=False, cache=False), wanted)
    return pl.when(day.is_not_null()).then(written).otherwise(otherwise)


def duplicate_ids(parts: Callable[[], Iterable[pl.Series]], folder: Path) -> pl.Series:
    """Return the identifiers that occur more than once in the whole list, each once.

    Blank ones are left out: they break another rule, *required*. For memory and `folder` see
    `identifiers.repeated_ids`.
    """
    ids = identifiers.repeated_ids(parts, folder)
    return ids.filter(ids.str.strip_chars() != "")


def validate(
    frame: pl.DataFrame, fields: Sequence[WorkspaceField], repeated: pl.Series | None = None
) -> Validation:
    """Validate the rows of a text frame.

    `repeated` are the identifiers that occur more than once in the whole list, of which `frame` may
    be a part; None finds those of the frame. Every copy is rejected: any may be the right one.
    """
    present = [field for field in fields if field.field_name in frame.columns]
    if repeated is None:
        ids = frame[key_of(present)] if any(field.unique for field in present) else no_ids()
        repeated = ids.filter(ids.is_duplicated()).unique()
    # By number: a field can have any name, also those of the columns made here.
    numbered = {str(number): field for number, field in enumerate(present)}
    kept = frame.select(
        _broken(field, frame, repeated).kept().alias(number) for number, field in numbered.items()
    )
    good = kept.select(pl.all_horizontal(pl.all())).to_series()
    if good.all():
        return Validation(frame, _no_errors())
    bad = frame.filter(~good)
    broken = {number: field for number, field in numbered.items() if not kept[number].all()}
    names = {number: field.field_name for number, field in broken.items()}
    errors = (
        bad.select(
            _broken(field, bad, repeated).code().alias(number) for number, field in broken.items()
        )
        .insert_column(0, (~good).arg_true().alias("row"))
        .unpivot(index="row", variable_name="field", value_name="code")
        .drop_nulls("code")
        .sort("row", maintain_order=True)
        .with_columns(pl.col("field").replace_strict(names, return_dtype=pl.String()))
    )
    return Validation(frame.filter(good), errors)


def _written(day: pl.Expr, date_format: str) -> pl.Expr:
    notation = DATE_FORMATS[date_format]
    first, last = _YEARS["%Y" if "%Y" in notation else "%y"]
    tellable = day.dt.year().is_between(first, last)
    return pl.when(tellable).then(day.dt.strftime(notation)).otherwise(pl.lit(_NO_DATE))


class _Broken(NamedTuple):
    """Which rules the values of a field break, one boolean expression each."""

    missing: pl.Expr
    absent: pl.Expr
    nul: pl.Expr
    duplicate: pl.Expr
    rule: pl.Expr
    rule_code: str

    def kept(self) -> pl.Expr:
        """Return whether a value keeps all rules."""
        return ~self.missing & (self.absent | ~(self.nul | self.duplicate | self.rule))

    def code(self) -> pl.Expr:
        """Return the code of the first rule a value breaks, null if it keeps all."""
        return (
            pl.when(self.missing)
            .then(pl.lit("required"))
            .when(self.absent)
            .then(None)
            .when(self.nul)
            .then(pl.lit("nul"))
            .when(self.duplicate)
            .then(pl.lit("duplicate"))
            .when(self.rule)
            .then(pl.lit(self.rule_code))
        )


def _broken(field: WorkspaceField, frame: pl.DataFrame, repeated: pl.Series) -> _Broken:
    value, values = column(field.field_name), frame[field.field_name]
    no = pl.lit(False)
    needed = field.required or field.unique
    blank = value.is_null() | (value.str.strip_chars().str.len_bytes() == 0)
    kept, code = _rule(field, value, values)
    return _Broken(
        missing=blank if needed else no,
        absent=value.is_null() | (value.str.len_bytes() == 0),
        nul=value.str.contains("\0", literal=True) if _holds_nul(values) else no,
        duplicate=value.is_in(repeated.implode()) if field.unique and len(repeated) else no,
        rule=~kept,
        rule_code=code,
    )


def _holds_nul(values: pl.Series) -> bool:
    _, raw = text_bytes(values.to_arrow())
    return b"\0" in raw


def _rule(field: WorkspaceField, value: pl.Expr, values: pl.Series) -> tuple[pl.Expr, str]:
    match field.field_type:
        case "string":
            return pl.lit(True), "string"
        case "number":
            return value.str.contains(_NUMBER), "number"
        case "char":
            return value.str.len_chars() == 1, "char"
        case "currency":
            digits = _currency_digits()[field.field_format or ""]
            fraction = rf"(?:\.[0-9]{{1,{digits}}})?" if digits else ""
            return value.str.contains(rf"^-?[0-9]+{fraction}\z"), "currency"
        case "Date":  # pragma: no branch - the last of the five
            notation = DATE_FORMATS[field.field_format or ""]
            if in_digits(notation):
                return pl.lit(are_dates(values, notation)), "date"
            return _is_date(value, field.field_format or ""), "date"


def _is_date(text: pl.Expr, date_format: str) -> pl.Expr:
    # polars' parser accepts spaces, short years and year 0; the pattern does not.
    pattern = notation = DATE_FORMATS[date_format]
    for part, expression in _DATE_PARTS.items():
        pattern = pattern.replace(part, expression)
    day = text.str.to_date(notation, strict=False, cache=False)
    return text.str.contains(rf"^{pattern}\z") & (day.dt.year() >= 1).fill_null(value=False)


def _parsed(text: pl.Expr, date_format: str) -> pl.Expr:
    """Return the dates of a format, null for other texts."""
    notation = DATE_FORMATS[date_format]
    day = text.str.to_date(notation, strict=False, cache=False)
    if "%y" in notation:
        late = day.dt.year() > _YEARS["%y"][1]
        day = pl.when(late).then(day.dt.offset_by("-100y")).otherwise(day)
    return pl.when(_is_date(text, date_format)).then(day)


@cache
def _currency_digits() -> Mapping[str, int]:
    from iso4217 import Currency

    return {
        currency.code: currency.exponent for currency in Currency if currency.exponent is not None
    }
