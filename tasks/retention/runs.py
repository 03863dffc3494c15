"""Retention of runs in the lake, and of files of messages that belong to no run."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from blocks import DataLake
from blocks.extras import require
from blocks.storage.files import Files, LakeError, StoredFile
from blocks.storage.handover import handover_folder
from blocks.storage.manifest import DELTA_LOG, MESSAGES, Manifest, is_of_a_run, manifest_name
from blocks.storage.reader import (
    find_newest,
    read_manifests,
    read_pointer,
    select_newest_manifests,
)
from blocks.storage.segments import segments_folder
from tasks.customers.holdout import HOLDOUTS, holdout_folder
from tasks.journal.refresh import STAGING
from tasks.retention.files import has_changed, is_open, partition_of
from tasks.retention.rules import CHANGED, OPEN, Ages, Candidate, cutoff

NEWEST = "It is the campaign's newest run."
NEEDED = "A run consists of it."
UNREADABLE = "The manifest of its run cannot be read."

_HOLDOUT = re.compile(rf"{HOLDOUTS}/campaign_id=[^/]+/run_number=\d+/customers\.parquet")

Manifests = Mapping[str, Manifest | LakeError]


def run_candidates(
    files: Files,
    stored: Sequence[StoredFile],
    manifests: Manifests,
    now: datetime,
    ages: Ages,
    open_: Collection[str],
) -> Iterator[Candidate]:
    """Yield leftovers, then old runs; never a campaign's newest run, and nothing of a campaign with
    an open refresh or with a manifest that cannot be read.
    """
    written = {file.path: file.modified for file in stored if is_of_a_run(file.path)}
    unreadable = {
        partition_of(path) for path, one in manifests.items() if isinstance(one, LakeError)
    }
    kept = {*open_, *unreadable}
    readable = {path: one for path, one in manifests.items() if isinstance(one, Manifest)}
    limit = cutoff(now, ages.staging_days)
    yield from _leftovers(stored, written.keys(), readable, limit, kept)
    yield from _holdouts_without_run(stored, written.keys(), limit, kept)
    if ages.runs_kept is None and ages.runs_days is None:
        return
    if files.exists(DELTA_LOG):
        require("delta", f"To remove runs from the Delta table in {files.root}")
    campaigns: dict[str, list[str]] = {}
    for path in sorted(readable, key=lambda path: readable[path].run_number, reverse=True):
        campaigns.setdefault(partition_of(path), []).append(path)
    for partition, runs in campaigns.items():
        if partition in kept:
            continue
        pointer = read_pointer(files, readable[runs[0]].campaign_id)
        for path in runs[ages.runs_kept or 1 :]:
            manifest, since = readable[path], written[path]
            too_young = ages.runs_days is not None and since >= cutoff(now, ages.runs_days)
            if manifest.run_number != (pointer and pointer.run_number) and not too_young:
                yield Candidate(kind="lake run", target=path, since=since, bytes=manifest.bytes)


def remove_leftover(files: Files, candidate: Candidate, listed_at: datetime) -> str | None:
    """Remove a file of messages that no newest manifest names, or a holdout without a run; return
    why it is kept.
    """
    if has_changed(files, candidate, listed_at):
        return CHANGED
    if is_open(files, partition_of(candidate.target)):
        return OPEN
    newest = _newest_in(files, _folder_of_run(candidate.target))
    if newest and candidate.target.startswith(f"{HOLDOUTS}/"):
        return NEEDED
    for path, manifest in read_manifests(files, newest).items():
        if isinstance(manifest, LakeError):
            return UNREADABLE
        if candidate.target in _files_of(path, manifest):
            return NEEDED
    files.remove(candidate.target)
    return None


def remove_run(lake: DataLake, candidate: Candidate) -> str | None:
    """Remove the run that has the candidate for its newest manifest; return why it is kept.

    The parts are removed last, so that readers see the whole run or none.
    """
    files, folder = lake.files, candidate.target.rpartition("/")[0]
    newest = _newest_in(files, folder)
    if not newest:
        return None
    if newest != [candidate.target]:
        return CHANGED
    if is_open(files, partition_of(folder)):
        return OPEN
    manifest = read_manifests(files, newest)[candidate.target]
    if isinstance(manifest, LakeError):
        return UNREADABLE
    pointed = (read_pointer(files, manifest.campaign_id), find_newest(files, manifest.campaign_id))
    if manifest.run_number in (one.run_number for one in pointed if one):
        return NEWEST
    if files.exists(DELTA_LOG):
        from blocks.storage import delta

        delta.remove(files, lake.options, manifest)
    for folder_of in (segments_folder, holdout_folder, handover_folder):
        files.remove(folder_of(manifest.campaign_id, manifest.run_number))
    # The newest manifest last: without it an earlier one would count.
    for generation in range(manifest.generation + 1):
        files.remove(f"{folder}/{manifest_name(generation)}")
    for path in _files_of(candidate.target, manifest):
        files.remove(path)
    return None


def _leftovers(
    stored: Sequence[StoredFile],
    paths: Collection[str],
    manifests: Mapping[str, Manifest],
    limit: datetime,
    kept: Collection[str],
) -> Iterator[Candidate]:
    """Yield the old files among the `paths` of runs that none of the manifests names. The files of
    an export stay while its staging folder exists: its retry needs them.
    """
    needed = {file for path, manifest in manifests.items() for file in _files_of(path, manifest)}
    exports = {path.split("/")[2] for path in _staged(stored)}
    for file in stored:
        if (
            file.modified < limit
            and file.path in paths
            and file.path not in needed
            and partition_of(file.path) not in kept
            and _writer_of(file.path) not in exports
        ):
            yield Candidate(
                kind="leftover", target=file.path, since=file.modified, bytes=file.bytes
            )


def _holdouts_without_run(
    stored: Sequence[StoredFile], paths: Collection[str], limit: datetime, kept: Collection[str]
) -> Iterator[Candidate]:
    """Yield the old holdouts of runs that have no manifest among the `paths` of runs: their refresh
    was ended, or retention was killed while it removed the run.
    """
    in_lake = {path.rpartition("/")[0] for path in select_newest_manifests(paths)}
    for file in stored:
        if (
            file.modified < limit
            and _HOLDOUT.fullmatch(file.path)
            and _folder_of_run(file.path) not in in_lake
            and partition_of(file.path) not in kept
        ):
            yield Candidate(
                kind="leftover", target=file.path, since=file.modified, bytes=file.bytes
            )


def _folder_of_run(path: str) -> str:
    """Return the folder of messages of the run that a file is about."""
    return "/".join([MESSAGES, *path.split("/")[1:3]])


def _newest_in(files: Files, folder: str) -> list[str]:
    return select_newest_manifests(file.path for file in files.list_files(folder))


def _files_of(path: str, manifest: Manifest) -> list[str]:
    """Return the files of a run: its parts and its manifest."""
    folder = path.rpartition("/")[0]
    return [*(f"{folder}/{part.name}" for part in manifest.parts), path]


def _writer_of(path: str) -> str:
    """Return the writer that is part of a part's name."""
    return path.rpartition("/")[2].partition(".")[0].rpartition("-")[2]


def _staged(stored: Sequence[StoredFile]) -> Iterator[str]:
    return (
        file.path
        for file in stored
        if file.path.startswith(f"{STAGING}/") and file.path.count("/") > 2
    )
