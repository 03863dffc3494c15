"""What flow runs hold while an erasure begins: staged lists, and drafts of files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.storage.errors import LakeError
from blocks.storage.files import Files, is_draft
from blocks.storage.manifest import MESSAGES
from blocks.storage.parquet import read_frames
from blocks.storage.scratch import scratch_folder
from nudgescribe.errors import NudgeflowError, first_ten
from nudgescribe.lazy import pa, pl
from tasks.erasure.listed import Find, ToErase, finder
from tasks.erasure.tables import TABLES
from tasks.journal.entries import Journal, JournalDamaged, Step
from tasks.journal.owners import owner_state
from tasks.journal.refresh import JOURNALS, STAGING, Claimed, Refresh
from tasks.policies import RETRIED
from tasks.refresh.history import OpenRefreshes, expire, is_alive, open_refreshes
from tasks.refresh.rerun import note_started_rerun
from tasks.refresh.standing import Standing

DRAFTS_DEAD = timedelta(hours=1)
"""A file that nobody has written to for so long is one of a flow run that was killed."""
WITH_CUSTOMERS = ("export-messages", "sync-customers", "plan-refresh", "erase-customers")
_JOURNAL = re.compile(rf"({JOURNALS}/(?:{'|'.join(WITH_CUSTOMERS)})/[^/]+)/")


class ErasureBlocked(NudgeflowError):
    """Flow runs that are not over hold customers to erase, or may."""

    advice = (
        "Let them end, or end a refresh with the flow abandon-refresh; then retry this flow run. "
        "They are not disturbed."
    )


@task(**RETRIED)
def check_open_work(to_erase: ToErase, lake: DataLake, run: Refresh) -> None:
    """Raise ErasureBlocked if a refresh, synchronisation, export or plan that is not over holds
    the customers, or is about to read a list or messages.
    """
    with to_erase.ids(lake) as ids:
        _refuse(_blocking(lake.files, finder(ids), run))


@task(**RETRIED)
def erase_from_staging(
    to_erase: ToErase, account: NudgescribeAccount, lake: DataLake, run: Refresh
) -> int:
    """Remove the staging of flow runs that were killed or have failed, if it holds the customers,
    as lake-retention would in time; return how many folders. Raises ErasureBlocked.

    A refresh that has not started its rerun is over then; another one is finished without its list.
    """
    files, removed = lake.files, 0
    with to_erase.ids(lake) as ids:
        find = finder(ids)
        # Flow runs that began before the tombstones were there do not know them.
        _refuse(_blocking(files, find, run))
        partitions = _partitions(open_refreshes(files))
        for folder in _holding(files, find, run):
            partition = partitions.get(folder, "")
            has_started = partial(note_started_rerun, account, lake)
            if partition and not expire(files, partition, folder, has_started):
                _refuse([partition])
            files.remove(folder)
            removed += 1
        _remove_drafts(files, living=any(map(is_alive, open_refreshes(files).values())))
    if removed:
        get_run_logger().info("Removed %s staging folders", removed)
    return removed


def _refuse(blocking: list[str]) -> None:
    if blocking:
        raise ErasureBlocked(f"Not over: {first_ten(blocking)}.")


def _blocking(files: Files, find: Find, run: Refresh) -> list[str]:
    """Return who is in the way: partitions of campaigns, and journals of other flow runs."""
    holding = {*_holding(files, find, run)}
    blocking = [
        partition
        for partition, refresh in open_refreshes(files).items()
        if isinstance(refresh, LakeError)
        or (is_alive(refresh) and (refresh.refresh.staging in holding or _reads(files, refresh)))
    ]
    return [*blocking, *_open_journals(files, run)]


def _reads(files: Files, refresh: Standing) -> bool:
    """Return whether a refresh may be about to stage a list, or to read messages: those of the run
    before name whom its list has no more, and without its list nobody knows whom it has.
    """
    steps = Journal(files, refresh.refresh.journal).contents().steps
    if Step.VALIDATED not in steps or Step.PUBLISHED in steps:
        return True
    return Step.INITIATED in steps and not files.list_names(refresh.refresh.staging)


def _open_journals(files: Files, run: Refresh) -> Iterator[str]:
    stored: dict[str, set[str]] = {}
    for file in files.list_files(JOURNALS):
        if found := _JOURNAL.match(file.path):
            stored.setdefault(found[1], set()).add(file.path.rpartition("/")[2])
    for folder, names in sorted(stored.items()):
        if f"{Step.ENDED}.json" in names or folder == run.journal:
            continue
        try:
            claimed = Journal(files, folder).find(Step.CLAIMED, Claimed)
        except JournalDamaged:
            yield folder
            continue
        # A retry works in another process than the one that began the journal.
        if claimed and owner_state(claimed.owner.model_copy(update={"machine": ""})) is not None:
            yield folder


def _partitions(open_: OpenRefreshes) -> dict[str, str]:
    return {
        refresh.refresh.staging: partition
        for partition, refresh in open_.items()
        if isinstance(refresh, Standing)
    }


def _holding(files: Files, find: Find, run: Refresh) -> Iterator[str]:
    """Yield the folders of staging, this flow run's excepted, in which a list has an identifier in
    any of its columns: which one identifies customers is not known of all.
    """
    lists: dict[str, list[str]] = {}
    for file in files.list_files(STAGING):
        folder = "/".join(file.path.split("/")[:2])
        if file.path.endswith(".parquet") and folder != run.staging:
            lists.setdefault(folder, []).append(file.path)
    for folder, paths in lists.items():
        if any(_holds(files, path, find) for path in paths):
            yield folder


def _holds(files: Files, path: str, find: Find) -> bool:
    with scratch_folder(path) as folder:
        local = folder / "list.parquet"
        files.get(path, local)
        try:
            return any(
                find(frame[name]).any()
                for frame in read_frames(local)
                for name, kind in frame.schema.items()
                if kind == pl.String
            )
        except (pa.ArrowException, OSError, LakeError):
            return True  # damaged: nobody can work with it


def _remove_drafts(files: Files, *, living: bool) -> None:
    """Remove what killed flow runs have half written: while a refresh is `living`, which may write,
    only what is old. Raises ErasureBlocked for the rest.
    """
    drafts = [
        file
        for folder in (MESSAGES, STAGING, *TABLES)
        for file in files.list_files(folder)
        if is_draft(file.path)
    ]
    limit = files.now() - DRAFTS_DEAD if drafts and living else None
    for file in drafts:
        if limit is None or file.modified < limit:
            files.remove(file.path)
        else:
            raise ErasureBlocked(f"{file.path} is being written, or its writer was killed.")
