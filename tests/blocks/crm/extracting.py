"""A list extracted and read back, or refused."""

from pathlib import Path

import polars as pl
import pytest

from blocks.crm.source import CrmSource, SourceError, SourceUnavailable

CANARY = "ada@example.com"
"""A customer's value, which no message may hold."""


def read_back(crm: CrmSource, target: Path) -> pl.DataFrame:
    """The list, of as many rows as the source says."""
    rows = crm.extract(target)
    frame = pl.read_parquet(target)
    assert frame.height == rows
    return frame


def refused(crm: CrmSource, target: Path) -> str:
    """Why the source refuses for good, in words without the canary."""
    with pytest.raises(SourceError) as caught:
        crm.extract(target)
    assert not isinstance(caught.value, SourceUnavailable)
    assert CANARY not in str(caught.value)
    return str(caught.value)
