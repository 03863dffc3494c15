"""Segments: which there are in a customer list, and how two sets of them compare."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from nudgescribe.contract import Segment
from nudgescribe.fields import column


@dataclass(frozen=True)
class SegmentDiff:
    """Matched: in both sets. New: only in the later. Orphaned: only in the earlier."""

    matched: tuple[Segment, ...]
    new: tuple[Segment, ...]
    orphaned: tuple[Segment, ...]


def key(segment: Segment) -> str:
    """The same text for the same segment, whatever the order of its variables."""
    return json.dumps(dict(segment), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def columns(variables: Sequence[str]) -> list[pl.Expr]:
    """The variables of each customer as text, "" for no value: together they are the segment."""
    return [column(variable).cast(pl.String).fill_null("") for variable in variables]


def count(customers: pl.LazyFrame, variables: Sequence[str]) -> list[tuple[Segment, int]]:
    """Every segment of a list with its number of customers, in a stable order."""
    names = [column(variable) for variable in variables]
    counted = (
        customers.select(columns(variables))
        .group_by(names)
        .agg(pl.len().alias("\0size"))  # no variable is named so
        .sort(names)
        .collect(engine="streaming")
    )
    return [(dict(zip(variables, values, strict=True)), size) for *values, size in counted.rows()]


def distinct(customers: Iterable[pl.DataFrame], variables: Sequence[str]) -> list[Segment]:
    """The segments of a list that comes in parts, in a stable order."""
    parts = [part.select(columns(variables)).unique() for part in customers]
    if not parts:
        return []
    names = [column(variable) for variable in variables]
    return list(pl.concat(parts).unique().sort(names).iter_rows(named=True))


def compare(earlier: Iterable[Segment], later: Iterable[Segment]) -> SegmentDiff:
    """Sorts the segments of two sets into matched, new and orphaned, each in given order."""
    before = {key(segment): segment for segment in earlier}
    after = {key(segment): segment for segment in later}
    return SegmentDiff(
        matched=tuple(segment for name, segment in after.items() if name in before),
        new=tuple(segment for name, segment in after.items() if name not in before),
        orphaned=tuple(segment for name, segment in before.items() if name not in after),
    )
