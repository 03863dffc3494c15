"""A refresh's customer list in the lake's staging: Parquet files, one folder per refresh."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from blocks import DataLake
from blocks.storage.errors import NotInLake
from blocks.storage.proof import compute_sha256
from blocks.storage.scratch import scratch_folder
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError
from nudgescribe.lazy import parquet


class Staged(Frozen):
    """A staged Parquet file, by its path in the lake."""

    path: str
    rows: int
    sha256: str


class StagingLost(NudgeflowError):
    """A staged list is no longer in the lake."""

    advice = "Start a new refresh; this one cannot be continued."


class RowsLost(NudgeflowError):
    """A step has not handed on all rows."""

    advice = "Nothing was changed at Nudgescribe. Retry; if it stays, report it: it is our mistake."


class StagingChanged(NudgeflowError):
    """A staged list is not the one that was staged."""

    advice = "Somebody has changed it: end this refresh with the flow abandon-refresh."


def describe(local: Path, path: str) -> Staged:
    """Return the reference of a local Parquet file whose copy is in the lake under `path`."""
    return Staged(path=path, rows=count_rows(local), sha256=compute_sha256(local))


def count_rows(local: Path) -> int:
    """Return the number of rows of a local Parquet file."""
    return parquet.read_metadata(local).num_rows


@contextmanager
def local_copy(lake: DataLake, staged: Staged) -> Generator[Path, None, None]:
    """Yield a local copy of a staged file, its checksum verified.

    Raises StagingLost, StagingChanged.
    """
    with scratch_folder(staged.path) as folder:
        local = folder / "staged.parquet"
        try:
            lake.files.get(staged.path, local)
        except NotInLake:
            raise StagingLost(f"{staged.path} is no longer in the lake.") from None
        if compute_sha256(local) != staged.sha256:
            raise StagingChanged(f"{staged.path} has changed since it was staged.")
        yield local
