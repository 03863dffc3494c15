"""Retention of the lake's files except messages: staging, drafts, quarantine, plans, journals."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial

from blocks import DataLake, NudgescribeAccount
from blocks.storage.files import Files, LakeError, StoredFile, is_draft
from blocks.storage.history import SYNC_CHANGES, SYNC_RUNS
from nudgescribe.errors import ApiError
from tasks.customers.upload import release_held_group
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import JOURNALS, STAGING, Claimed, Refresh
from tasks.refresh.history import (
    REFRESHES,
    History,
    OpenRefreshes,
    expire,
    is_alive,
    newest_refresh,
    newest_refreshes,
)
from tasks.refresh.plan import PLANS
from tasks.refresh.rerun import note_started_rerun
from tasks.refresh.standing import Standing
from tasks.retention.rules import CHANGED, OPEN, Ages, Candidate, Kind, cutoff

QUARANTINE = "quarantine"
_IN_PARTITION = re.compile(r"campaign_id=[^/]+/[^/.][^/]*\.(parquet|json|png)")
_STAGED = re.compile(rf"({STAGING}/[\w-]+)/.+")
_JOURNAL = re.compile(rf"{JOURNALS}/[^/]+/([0-9a-f-]{{36}})[^/]*/")
"""Of a flow run that is no refresh; its folder in staging has the flow run's id, too."""


def file_candidates(
    files: Files,
    stored: Sequence[StoredFile],
    now: datetime,
    ages: Ages,
    open_: OpenRefreshes,
    refresh: Refresh,
) -> Iterator[Candidate]:
    """Yield the old files of the lake, messages and the staging of this flow run excepted."""
    limit = cutoff(now, ages.staging_days)
    staging = [*_staging_candidates(files, stored, limit, open_, refresh.staging)]
    yield from staging
    removed = {candidate.target for candidate in staging}
    for file in stored:
        if (
            is_draft(file.path)
            and file.modified < limit
            and _staging_folder(file.path) not in removed
        ):
            yield _candidate("draft", file)
    for upload in files.unfinished_uploads(limit):
        yield Candidate(
            kind="upload", target=upload.path, since=upload.started, upload_id=upload.upload_id
        )
    if ages.quarantine_days is not None:
        limit = cutoff(now, ages.quarantine_days)
        yield from _old_files(QUARANTINE, "quarantine", stored, limit, open_)
    if ages.plans_days is not None:
        limit = cutoff(now, ages.plans_days)
        yield from _old_files(PLANS, "plan", stored, limit, open_)
    if ages.history_days is not None:
        limit = cutoff(now, ages.history_days)
        for table in (SYNC_RUNS, SYNC_CHANGES):
            yield from _old_files(table, "history", stored, limit, open_)
    if ages.journals_days is not None:
        limit = cutoff(now, ages.journals_days)
        yield from _journal_candidates(files, stored, limit, open_, refresh)


def remove_journal(
    account: NudgescribeAccount, lake: DataLake, candidate: Candidate, listed_at: datetime
) -> str | None:
    """Remove the journal of a refresh or of another flow run; return why it is kept.

    A mark that a refresh has left on a group goes first: only the journal tells that it is over.
    """
    files = lake.files
    if has_changed(files, candidate, listed_at):
        return CHANGED
    if candidate.target in _newest_journals(files, [partition_of(candidate.target)]):
        return OPEN
    try:
        if candidate.target.startswith(f"{REFRESHES}/"):
            _release_mark(account, lake, candidate.target)
    except ApiError as error:
        return error.problem
    files.remove(candidate.target)
    return None


def _release_mark(account: NudgescribeAccount, lake: DataLake, folder: str) -> None:
    claimed = Journal(lake.files, folder).find(Step.CLAIMED, Claimed)
    if claimed:
        refresh = claimed.refresh.model_copy(update={"journal": folder})
        release_held_group.fn(account, lake, refresh)


def remove_staging(
    account: NudgescribeAccount, lake: DataLake, candidate: Candidate, listed_at: datetime
) -> str | None:
    """Remove a staging folder, which ends a refresh left half-way; return why it is kept."""
    files, partition = lake.files, candidate.partition
    if has_changed(files, candidate, listed_at):
        return CHANGED
    has_started = partial(note_started_rerun, account, lake)
    try:
        if partition and not expire(files, partition, candidate.target, has_started):
            return OPEN
    except ApiError as error:
        return error.problem
    files.remove(candidate.target)
    return None


def remove_file(files: Files, candidate: Candidate, listed_at: datetime) -> str | None:
    """Remove a file; return why it is kept."""
    if has_changed(files, candidate, listed_at):
        return CHANGED
    if candidate.kind != "draft" and is_open(files, partition_of(candidate.target)):
        return OPEN
    files.remove(candidate.target)
    return None


def has_changed(files: Files, candidate: Candidate, listed_at: datetime) -> bool:
    """Return whether a candidate was written to since it was listed."""
    return any(file.modified >= listed_at for file in files.list_files(candidate.target))


def partition_of(path: str) -> str:
    """Return the second folder of a path, which is the campaign's partition in most folders."""
    return path.split("/")[1]


def is_open(files: Files, partition: str) -> bool:
    """Return whether a refresh of the campaign is open now."""
    newest = newest_refresh(files, partition)
    return isinstance(newest, LakeError) or (newest is not None and newest.ended is None)


def _staging_candidates(
    files: Files, stored: Sequence[StoredFile], limit: datetime, open_: OpenRefreshes, own: str
) -> Iterator[Candidate]:
    """Yield the staging folders without a recent file whose refresh nobody works on."""
    folders: dict[str, list[StoredFile]] = {}
    for file in stored:
        if folder := _staging_folder(file.path):
            folders.setdefault(folder, []).append(file)
    partitions = {
        standing.refresh.staging: partition
        for partition, standing in open_.items()
        if isinstance(standing, Standing)
    }
    kept = {own, *_unknown_staging(files, stored, folders, open_)}
    for folder, content in folders.items():
        written = max(file.modified for file in content)
        partition = partitions.get(folder, "")
        if written < limit and folder not in kept and not is_alive(open_.get(partition)):
            yield Candidate(
                kind="staging",
                target=folder,
                since=written,
                bytes=sum(file.bytes for file in content),
                partition=partition,
            )


def _unknown_staging(
    files: Files, stored: Sequence[StoredFile], folders: Iterable[str], open_: OpenRefreshes
) -> set[str]:
    """Return the staging folders that may be those of a refresh whose journal cannot be read."""
    if not any(isinstance(refresh, LakeError) for refresh in open_.values()):
        return set()
    known = {f"{STAGING}/{found[1]}" for file in stored if (found := _JOURNAL.match(file.path))}
    for _, newest in newest_refreshes(files):
        if isinstance(newest, Standing):
            known.add(newest.refresh.staging)
    return {*folders} - known


def _journal_candidates(
    files: Files,
    stored: Sequence[StoredFile],
    limit: datetime,
    open_: OpenRefreshes,
    own: Refresh,
) -> Iterator[Candidate]:
    """Yield old journals. The newest of each campaign stays, since it tells who has the campaign,
    and so do all of a campaign that has one that cannot be read.
    """
    journals: dict[str, list[StoredFile]] = {}
    for file in stored:
        top, *rest = file.path.split("/")
        if top not in (REFRESHES, JOURNALS) or len(rest) < 3:
            continue
        if not (top == REFRESHES and isinstance(open_.get(rest[0]), LakeError)):
            journals.setdefault("/".join([top, *rest[:2]]), []).append(file)
    kept = {own.journal, *_newest_journals(files, {partition_of(folder) for folder in journals})}
    for folder, content in journals.items():
        written = max(file.modified for file in content)
        if written < limit and folder not in kept:
            size = sum(file.bytes for file in content)
            yield Candidate(kind="journal", target=folder, since=written, bytes=size)


def _newest_journals(files: Files, partitions: Iterable[str]) -> set[str]:
    histories = (History(files, partition) for partition in partitions)
    return {history.journal(history.newest_number()).folder for history in histories}


def _old_files(
    folder: str, kind: Kind, stored: Sequence[StoredFile], limit: datetime, open_: Collection[str]
) -> Iterator[Candidate]:
    """Yield the old files of a folder that no open refresh needs."""
    for file in stored:
        if (
            file.modified < limit
            and _is_ours(folder, file.path)
            and partition_of(file.path) not in open_
        ):
            yield _candidate(kind, file)


def _staging_folder(path: str) -> str | None:
    """Return the staging folder that a file is in, None if it is in none."""
    match = _STAGED.fullmatch(path)
    return match[1] if match else None


def _is_ours(folder: str, path: str) -> bool:
    """Return whether a file is one that the project has put into a folder, by its path."""
    return _IN_PARTITION.fullmatch(path.removeprefix(f"{folder}/")) is not None


def _candidate(kind: Kind, file: StoredFile) -> Candidate:
    return Candidate(kind=kind, target=file.path, since=file.modified, bytes=file.bytes)
