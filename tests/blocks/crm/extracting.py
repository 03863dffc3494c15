"""A list extracted and read back, or refused."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.source import CrmSource

CANARY = "ada@example.com"
"""A customer's value, which no message may hold."""
Extract = Callable[..., pl.DataFrame]
Refusal = Callable[..., str]


def read_back(crm: CrmSource, target: Path) -> pl.DataFrame:
    """The list, of as many rows as the source says."""
    rows = crm.extract(target)
    frame = pl.read_parquet(target)
    assert frame.height == rows
    return frame


def refused(crm: CrmSource, target: Path) -> str:
    """Why the source refuses for good, in words without the canary."""
    error = failed(crm, target)
    assert not isinstance(error, SourceUnavailable)
    return str(error)


def unavailable(crm: CrmSource, target: Path) -> str:
    """Why the source may be asked again later, in words without the canary."""
    error = failed(crm, target)
    assert isinstance(error, SourceUnavailable)
    return str(error)


def failed(crm: CrmSource, target: Path) -> SourceError:
    """The error of an extraction, which holds the canary nowhere."""
    with pytest.raises(SourceError) as caught:
        crm.extract(target)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value
