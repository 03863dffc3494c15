"""Hashes to compare customers, and whole lists of customers, by."""

from __future__ import annotations

from collections.abc import Sequence

from nudgescribe.fields import column
from nudgescribe.lazy import np, pl


def content(columns: Sequence[str]) -> pl.Expr:
    """Return the hash of a customer's values, UInt64; null and "" count as the same value.

    Hashes can only be compared if the same release of polars made them.
    """
    return pl.struct(column(name).fill_null("") for name in sorted(columns)).hash()


class Fingerprint:
    """The fingerprint of a list that arrives in batches; the order of its rows does not matter."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._content = content(columns)
        self._origin = f"polars {pl.__version__}: {', '.join(sorted(columns))}"
        self._rows, self._sum = 0, 0

    def add(self, batch: pl.DataFrame) -> None:
        """Add the rows of a batch."""
        hashes = batch.select(self._content).to_series().to_numpy()
        self._rows += batch.height
        self._sum = (self._sum + int(hashes.sum(dtype=np.uint64))) % 2**64

    def __str__(self) -> str:
        return f"{self._rows} rows, {self._sum:016x} ({self._origin})"
