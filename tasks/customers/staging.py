"""A refresh's customer list in the lake's staging: Parquet files, one folder per refresh."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import polars as pl
from prefect import task
from pydantic import BaseModel

from blocks import DataLake
from blocks.storage.files import Files, NotInLake
from blocks.storage.part_writer import compute_sha256
from blocks.storage.scratch import scratch_folder
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import Refresh
from tasks.policies import NEVER_CACHED

STAGING = "staging"
KEPT = "kept"

M = TypeVar("M", bound=BaseModel)


class Staged(Frozen):
    """A staged Parquet file, by its path in the lake."""

    path: str
    rows: int
    sha256: str


class StagingLost(NudgeflowError):
    advice = "Start a new refresh; this one cannot be continued."


def folder_of(refresh: Refresh) -> str:
    """Return the folder of the lake that holds a refresh's customer list while it runs."""
    return f"{STAGING}/{refresh.id}"


def describe(local: Path, path: str) -> Staged:
    """Return the reference of a local Parquet file whose copy is in the lake under `path`."""
    rows = pl.scan_parquet(local).select(pl.len()).collect().item()
    return Staged(path=path, rows=rows, sha256=compute_sha256(local))


@contextmanager
def local_copy(lake: DataLake, staged: Staged) -> Generator[Path, None, None]:
    """Yield a local copy of a staged file, its checksum verified. Raises StagingLost."""
    with scratch_folder(staged.path) as folder:
        local = folder / "staged.parquet"
        try:
            lake.files.get(staged.path, local)
        except NotInLake:
            raise StagingLost(f"{staged.path} is no longer in the lake.") from None
        if compute_sha256(local) != staged.sha256:
            raise StagingLost(f"{staged.path} has changed since it was staged.")
        yield local


def batches(listed: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """Yield a list in its order, so many rows at a time."""
    return listed.collect_batches(chunk_size=rows, maintain_order=True)


def load_or_compute(lake: DataLake, path: str, kind: type[M], compute: Callable[[], M]) -> M:
    """Return the model saved under `path`, or compute it and save it there, so that a retry works
    on the same one.
    """
    try:
        return kind.model_validate_json(lake.files.read(path))
    except NotInLake:
        computed = compute()
        lake.files.write(path, computed.model_dump_json().encode(), private=True)
        return computed


@task(**NEVER_CACHED)
def keep_staged(lake: DataLake, refresh: Refresh) -> None:
    """Keep the list for retries until the refresh succeeds, or `lake-retention` removes it."""
    lake.files.write(f"{folder_of(refresh)}/{KEPT}", b"", private=True)


def is_kept(files: Files, refresh: Refresh) -> bool:
    """Tell whether a refresh's list was marked to be kept."""
    return files.exists(f"{folder_of(refresh)}/{KEPT}")


@task(**NEVER_CACHED)
def release_staged(lake: DataLake, refresh: Refresh) -> None:
    """Remove the customer list from the lake's staging, unless it is kept for a retry."""
    files = lake.files
    if not is_kept(files, refresh):
        files.remove(folder_of(refresh))


@task(**NEVER_CACHED)
def remove_staged(lake: DataLake, refresh: Refresh) -> None:
    """Remove the customer list from the lake's staging."""
    lake.files.remove(folder_of(refresh))
