"""The segments of customer lists, counted and compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from nudgescribe.contract import Segment
from nudgescribe.fields import column
from nudgescribe.lazy import pl


@dataclass(frozen=True)
class SegmentDiff:
    """Segments in both sets (matched), only in the later (new), only in the earlier (orphaned)."""

    matched: tuple[Segment, ...]
    new: tuple[Segment, ...]
    orphaned: tuple[Segment, ...]


def key(segment: Segment) -> str:
    """Return a text that equal segments share, whatever the order of their variables."""
    return json.dumps(dict(segment), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def segment_id(segment: Segment) -> str:
    """Return an id that a segment has in every run and every campaign of these variables."""
    return sha256(key(segment).encode()).hexdigest()[:32]


def columns(variables: Sequence[str]) -> list[pl.Expr]:
    """Return the variables of each customer as text, "" for no value: its segment."""
    return [column(variable).cast(pl.String).fill_null("") for variable in variables]


def count(customers: pl.LazyFrame, variables: Sequence[str]) -> list[tuple[Segment, int]]:
    """Return the segments of a list with their numbers of customers, sorted by `variables`."""
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
    """Return the segments of a list that comes in parts, sorted by `variables`."""
    parts = [part.select(columns(variables)).unique() for part in customers]
    if not parts:
        return []
    names = [column(variable) for variable in variables]
    return list(pl.concat(parts).unique().sort(names).iter_rows(named=True))


def compare(earlier: Iterable[Segment], later: Iterable[Segment]) -> SegmentDiff:
    """Compare two sets of segments. The order is kept: orphaned as in `earlier`, others `later`."""
    before = {key(segment): segment for segment in earlier}
    after = {key(segment): segment for segment in later}
    return SegmentDiff(
        matched=tuple(segment for name, segment in after.items() if name in before),
        new=tuple(segment for name, segment in after.items() if name not in before),
        orphaned=tuple(segment for name, segment in before.items() if name not in after),
    )
