"""A list split into the rows that keep the workspace's rules and the errors of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blocks.crm.list_file import ListFile, Origin
from blocks.crm.text import SPECIAL_FLOATS
from blocks.iterators import prefetch
from blocks.storage.parquet import ParquetSink, text_schema
from nudgescribe import fields
from nudgescribe.contract import WorkspaceField
from nudgescribe.errors import NudgeflowError
from nudgescribe.fields import Validation
from nudgescribe.lazy import pl
from tasks.customers.duplicates import DUPLICATE, Choice, Duplicates, find_duplicates
from tasks.customers.fingerprint import Fingerprint
from tasks.customers.holdout import Holdout
from tasks.customers.left_out import IsErased, LeftOut, find_suppressed
from tasks.customers.mapping import FieldMapping

ROWS_VALIDATED = 50_000
"""Most rows validated at a time."""
EXACT = {Origin.FLOAT16: 2**11, Origin.FLOAT32: 2**24, Origin.FLOAT64: 2**53}
"""Up to where floating-point numbers can be told from their neighbours."""


class ListRefused(NudgeflowError):
    """A list does not fit the workspace as a whole."""

    advice = "Nothing was changed at Nudgescribe. Correct the list or its query, then start again."


@dataclass(frozen=True)
class SplitList:
    """Local files: the `accepted` rows as text, the `errors` of the rejected ones, the identifiers
    of those `suppressed` and `held_out`; with the numbers of rejected rows, of repeated
    identifiers and of `erased` customers. `holdout_key` tells the key that has chosen those held
    out from others.
    """

    accepted: Path
    errors: Path
    suppressed: Path
    held_out: Path
    rejected: int
    repeated: int
    erased: int
    fingerprint: str
    holdout_key: str


def split_list(
    listed: ListFile,
    mapping: FieldMapping,
    folder: Path,
    *,
    strict: bool,
    duplicates: Choice,
    show: Callable[[pl.Series], pl.Series],
    suppressed: Path | None = None,
    is_erased: IsErased | None = None,
    holdout: Holdout | None = None,
) -> SplitList:
    """Validate every row of the list; `show` says what stands for identifiers beside the errors.
    The rows of customers who are `is_erased` are left out, also those that break a rule; so are the
    accepted rows of customers in the file `suppressed`, and of those of the holdout.

    Raises MappingRefused; ListRefused for wrong columns, for inexact identifiers and, if `strict`,
    for the first rejected row; SecretUnusable for a key that is not there.
    """
    chooser = holdout.chooser() if holdout else None
    values = mapping.expressions(listed)
    _check_columns([*values], mapping.rules, listed.certain)
    key = fields.key_of(mapping.rules)
    column = mapping.columns(listed.columns).get(key)
    identifiers = partial(read_identifiers, listed, column, values[key])
    repeated = find_duplicates(identifiers, duplicates, folder, is_erased)
    found = find_suppressed(identifiers(), suppressed, folder)
    accepted, errors = folder / "accepted.parquet", folder / "errors.parquet"
    fingerprint, rejected, erased = Fingerprint([*values]), 0, 0
    with (
        ParquetSink(accepted, text_schema([*values])) as accepted_sink,
        ParquetSink(errors, _errors_schema()) as errors_sink,
        LeftOut(key, found, is_erased, chooser, folder) as left_out,
    ):
        texts = prefetch(_texts(listed, values))
        validated = _validate(texts, mapping.rules, repeated, show, is_erased)
        for validation, rejected_erased in prefetch(validated):
            bad = validation.errors
            erased += rejected_erased
            if duplicates != "refuse":
                bad = bad.filter(pl.col("code") != DUPLICATE)
            if strict and bad.height:
                raise _first_of(bad)
            kept = left_out.take(validation.accepted)
            accepted_sink.write(kept)
            fingerprint.add(kept)
            errors_sink.write(validation.errors)
            rejected += validation.rejected_rows
    return SplitList(
        accepted,
        errors,
        left_out.suppressed,
        left_out.held_out,
        rejected,
        len(repeated.ids),
        left_out.erased + erased,
        str(fingerprint),
        chooser.key_id if chooser else "",
    )


def _errors_schema() -> pl.Schema:
    texts = ("identifier", "field", "code", "reason")
    return pl.Schema({"row": pl.UInt32(), **dict.fromkeys(texts, pl.String())})


def _check_columns(names: list[str], rules: list[WorkspaceField], certain: bool) -> None:
    problems = fields.header_problems(names, rules, certain) or fields.rule_problems(rules, names)
    if not {rule.field_name for rule in rules} & {*names}:
        raise ListRefused(
            f"None of the list's {len(names):,} columns is a field of the workspace: "
            "look whether it has a header row, or name the columns in options.fields. "
            f"{'; '.join(problems)}."
        )
    if problems:
        raise ListRefused(f"The list does not fit the workspace: {'; '.join(problems)}.")


def _texts(listed: ListFile, values: Mapping[str, pl.Expr]) -> Iterator[pl.DataFrame]:
    selected = [value.alias(name) for name, value in values.items()]
    return (frame.select(selected) for frame in listed.frames(ROWS_VALIDATED))


def read_identifiers(listed: ListFile, column: str | None, value: pl.Expr) -> Iterator[pl.Series]:
    """Yield the customer identifiers, which `column` holds unless they are all the same.

    Raises ListRefused for one that was a floating-point number and may have lost digits or is none,
    and for numbers that are the same but written differently.
    """
    origins = listed.origins(column) if column is not None else set[Origin]()
    exact = min((EXACT[origin] for origin in origins if origin in EXACT), default=None)
    if Origin.MIXED in origins:
        raise ListRefused(
            "The customer identifiers are numbers of several types, which write the same one "
            "differently, such as 5 and 5.00. Write all as integers or text."
        )
    read = None if column is None else [column]
    for frame in listed.frames(ROWS_VALIDATED, read):
        ids = frame.select(value.alias("id")).to_series()
        if exact and ids.is_in(list(SPECIAL_FLOATS.values())).any():
            raise ListRefused(
                "The customer identifiers are floating-point numbers, some of which are no number: "
                "NaN or Infinity. Leave out their rows, or write identifiers."
            )
        # From there on a number may be its neighbour's.
        if exact and (ids.cast(pl.Float64, strict=False).abs() >= exact).any():
            raise ListRefused(
                f"The customer identifiers are floating-point numbers, some of {exact:,} or more: "
                "these may have lost digits. Write them as integers or text."
            )
        yield ids


def _validate(
    texts: Iterator[pl.DataFrame],
    rules: list[WorkspaceField],
    repeated: Duplicates,
    show: Callable[[pl.Series], pl.Series],
    is_erased: IsErased | None,
) -> Iterator[tuple[Validation, int]]:
    """Validate batch by batch; number the rows in errors from 1 through the whole list. Yield with
    each how many of its rows break a rule and are of erased customers: nothing is said of those.
    """
    before, key = 0, fields.key_of(rules)
    for frame in texts:
        accepted, errors = repeated.validate(frame, rules, before)
        bad = errors["row"].unique()
        theirs = bad.filter(is_erased(frame[key].gather(bad))) if is_erased else bad.clear()
        errors = errors.filter(~pl.col("row").is_in(theirs.implode()))
        errors = errors.with_columns(
            pl.col("row") + (before + 1),
            show(frame[key].gather(errors["row"])).alias("identifier"),
            pl.col("code").replace_strict(fields.REASONS, return_dtype=pl.String()).alias("reason"),
        )
        yield Validation(accepted, errors), len(theirs)
        before += frame.height


def _first_of(errors: pl.DataFrame) -> ListRefused:
    first = errors.row(0, named=True)
    return ListRefused(f"Row {first['row']:,}, field '{first['field']}': {first['reason']}.")
