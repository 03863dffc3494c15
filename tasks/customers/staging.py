"""The customer list on its way: Parquet files in the lake's staging, one folder a refresh."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import polars as pl
from prefect import task
from pydantic import BaseModel, ConfigDict

from blocks import DataLake
from blocks.storage.files import Files, NotInLake
from blocks.storage.part_writer import compute_sha256
from blocks.storage.scratch import scratch_folder
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import Refresh
from tasks.policies import NEVER_CACHED

STAGING = "staging"
KEPT = "kept"

M = TypeVar("M", bound=BaseModel)


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
    return Staged(path=path, rows=rows, sha256=compute_sha256(local))


@contextmanager
def local_copy(lake: DataLake, staged: Staged) -> Generator[Path, None, None]:
    """A local copy of a staged file, proved to be the same. Raises StagingLost."""
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
    """A list in its order, some rows at a time."""
    return listed.collect_batches(chunk_size=rows, maintain_order=True)


def noted(lake: DataLake, path: str, kind: type[M], find_out: Callable[[], M]) -> M:
    """What was found out once, and noted under `path`, so that a retry goes by the same."""
    try:
        return kind.model_validate_json(lake.files.read(path))
    except NotInLake:
        found = find_out()
        lake.files.write(path, found.model_dump_json().encode(), private=True)
        return found


@task(**NEVER_CACHED)
def keep_staged(lake: DataLake, refresh: Refresh) -> None:
    """From here on a retry needs just this list: only success, or `lake-retention`, removes it."""
    lake.files.write(f"{folder_of(refresh)}/{KEPT}", b"", private=True)


def is_kept(files: Files, refresh: Refresh) -> bool:
    """Whether something was made of a refresh's list already."""
    return files.exists(f"{folder_of(refresh)}/{KEPT}")


@task(**NEVER_CACHED)
def release_staged(lake: DataLake, refresh: Refresh) -> None:
    """Removes the customer list from the lake's staging, unless a retry needs it."""
    files = lake.files
    if not is_kept(files, refresh):
        files.remove(folder_of(refresh))


@task(**NEVER_CACHED)
def remove_staged(lake: DataLake, refresh: Refresh) -> None:
    """Removes the customer list from the lake's staging."""
    lake.files.remove(folder_of(refresh))
