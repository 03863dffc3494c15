"""The customer list on its way: Parquet files in the lake's staging, one folder a refresh."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from prefect import task
from pydantic import BaseModel, ConfigDict

from blocks import DataLake
from blocks.files import LakeError
from blocks.loading import load
from blocks.parts import sha256_of
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import Refresh
from tasks.policies import NEVER_CACHED

STAGING = "staging"
ROWS_AT_ONCE = 20_000
"""Rows validated or uploaded at a time."""


class Staged(BaseModel):
    """A staged Parquet file, by its path in the lake."""

    model_config = ConfigDict(frozen=True)

    path: str
    rows: int
    sha256: str


class StagingLost(NudgeflowError):
    advice = "Start a new refresh; this one cannot be continued."


def folder_of(refresh: Refresh) -> str:
    """The folder of the lake that holds a refresh's customer list while it runs."""
    return f"{STAGING}/{refresh.id}"


def describe(local: Path, path: str) -> Staged:
    """The reference of a local Parquet file that lies in the lake under `path`."""
    rows = pl.scan_parquet(local).select(pl.len()).collect().item()
    return Staged(path=path, rows=rows, sha256=sha256_of(local))


@contextmanager
def local_copy(lake: DataLake, staged: Staged) -> Generator[Path, None, None]:
    """A local copy of a staged file, proved to be the same. Raises StagingLost."""
    with TemporaryDirectory() as folder:
        local = Path(folder) / "staged.parquet"
        try:
            lake.files.get(staged.path, local)
        except LakeError:
            raise StagingLost(f"{staged.path} is no longer in the lake.") from None
        if sha256_of(local) != staged.sha256:
            raise StagingLost(f"{staged.path} has changed since it was staged.")
        yield local


def batches(file: Path) -> Iterator[pl.DataFrame]:
    """The rows of a Parquet file in order, `ROWS_AT_ONCE` at a time."""
    return pl.scan_parquet(file).collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True)


@task(**NEVER_CACHED)
def remove_staged(lake: str, refresh: Refresh) -> None:
    """Removes the customer list from the lake's staging."""
    load(DataLake, lake).files.remove(folder_of(refresh))
