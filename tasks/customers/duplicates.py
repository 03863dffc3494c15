"""Customers whom a list has more than once: the list is refused, or one row of each is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from nudgescribe import fields
from nudgescribe.contract import WorkspaceField
from nudgescribe.fields import Validation
from nudgescribe.identifiers import no_ids
from nudgescribe.lazy import pl
from tasks.customers.left_out import IsErased

Choice = Literal["refuse", "first", "last"]
DUPLICATE = "duplicate"
"""Code of a rejected copy."""


class Duplicates:
    """The identifiers that a list repeats; of each, the row of this number, from 0, is taken, or
    none.
    """

    def __init__(self, ids: pl.Series, taken: Iterable[int] = ()) -> None:
        self.ids = ids
        self._taken = pl.Series([*taken], dtype=pl.Int64)

    def validate(
        self, frame: pl.DataFrame, rules: Sequence[WorkspaceField], before: int
    ) -> Validation:
        """Validate the rows of a frame, `before` which the list has so many; reject the copies that
        are not taken.
        """
        if self.ids.is_empty():
            return fields.validate(frame, rules, no_ids())
        key = fields.key_of(rules)
        rows = pl.int_range(before, before + frame.height, dtype=pl.Int64, eager=True)
        copies = frame[key].is_in(self.ids.implode()) & ~rows.is_in(self._taken.implode())
        copies = copies.fill_null(False)
        found = fields.validate(frame.filter(~copies), rules, no_ids())
        others = (~copies).arg_true().cast(found.errors.schema["row"])
        errors = found.errors.with_columns(others.gather(found.errors["row"]).alias("row"))
        rejected = pl.DataFrame({"row": copies.arg_true()}, schema={"row": errors.schema["row"]})
        rejected = rejected.with_columns(field=pl.lit(key), code=pl.lit(DUPLICATE))
        return Validation(found.accepted, pl.concat([errors, rejected]).sort("row"))


def find_duplicates(
    parts: Callable[[], Iterable[pl.Series]],
    choice: Choice,
    folder: Path,
    is_erased: IsErased | None = None,
) -> Duplicates:
    """Return the duplicates of a list whose identifiers `parts` yields, each time it is called.
    Those of customers who are `is_erased` are none: all their rows are left out.

    Their number bounds the memory. See `nudgescribe.identifiers` for `folder`.
    """
    ids = fields.duplicate_ids(parts, folder)
    if is_erased:
        ids = ids.filter(~is_erased(ids))
    if choice == "refuse" or ids.is_empty():
        return Duplicates(ids)
    taken: dict[str, int] = {}
    before = 0
    for part in parts():
        rows = part.is_in(ids.implode()).fill_null(False).arg_true()
        for row, id_ in zip(rows.to_list(), part.gather(rows).to_list(), strict=True):
            if choice == "last" or id_ not in taken:
                taken[id_] = before + row
        before += len(part)
    return Duplicates(ids, taken.values())
