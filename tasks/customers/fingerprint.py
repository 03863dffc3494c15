"""What tells whether two customers, or two lists of them, are the same."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from nudgescribe.fields import column


def content(columns: Sequence[str]) -> pl.Expr:
    """A customer's values as one number, UInt64; no value and "" are the same.

    Two of these can be compared if the same release of polars made them.
    """
    return pl.struct(column(name).fill_null("") for name in sorted(columns)).hash()


class Fingerprint:
    """Of a list that comes in parts; the order of its rows does not matter."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._content = content(columns)
        self._about = f"polars {pl.__version__}: {', '.join(sorted(columns))}"
        self._rows, self._sum = 0, 0

    def add(self, frame: pl.DataFrame) -> None:
        hashes = frame.select(self._content).to_series().to_numpy()
        self._rows += frame.height
        self._sum = (self._sum + int(hashes.sum(dtype=np.uint64))) % 2**64

    def __str__(self) -> str:
        return f"{self._rows} rows, {self._sum:016x} ({self._about})"
