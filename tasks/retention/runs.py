"""Retention of runs in the lake, and of files of messages that belong to no run."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from blocks import DataLake
from blocks.storage import delta
from blocks.storage.files import Files, StoredFile
from blocks.storage.manifest import LATEST, MESSAGES, Manifest, manifest_name
from blocks.storage.reader import find_latest_run, read_manifest, select_newest_manifests
from tasks.journal.refresh import STAGING
from tasks.retention.files import has_changed, is_draft, is_open, partition_of
from tasks.retention.rules import CHANGED, OPEN, Ages, Candidate, cutoff

NEWEST = "It is the campaign's newest run."
NEEDED = "A run consists of it."


def run_candidates(
    files: Files, found: Sequence[StoredFile], now: datetime, ages: Ages, open_: Collection[str]
) -> Iterator[Candidate]:
    """Yield leftovers, then old runs; never a campaign's newest run, and nothing of a campaign with
    an open refresh.
    """
    written = {file.path: file.modified for file in found if _is_of_a_run(file.path)}
    manifests = {path: read_manifest(files, path) for path in select_newest_manifests(written)}
    yield from _leftovers(found, written.keys(), manifests, cutoff(now, ages.staging_days), open_)
    if ages.runs_kept is None and ages.runs_days is None:
        return
    campaigns: dict[str, list[str]] = {}
    for path in sorted(manifests, key=lambda path: manifests[path].run_number, reverse=True):
        campaigns.setdefault(partition_of(path), []).append(path)
    for partition, runs in campaigns.items():
        latest = find_latest_run(files, manifests[runs[0]].campaign_id)
        for path in runs[ages.runs_kept or 1 :]:
            manifest, since = manifests[path], written[path]
            too_young = ages.runs_days is not None and since >= cutoff(now, ages.runs_days)
            if partition not in open_ and manifest.run_number != latest and not too_young:
                yield Candidate(kind="lake run", target=path, since=since, bytes=manifest.bytes)


def remove_leftover(files: Files, candidate: Candidate, listed_at: datetime) -> str | None:
    """Remove a file of messages that no newest manifest names; return why it is kept."""
    if has_changed(files, candidate, listed_at):
        return CHANGED
    if is_open(files, partition_of(candidate.target)):
        return OPEN
    for path in _newest_in(files, candidate.target.rpartition("/")[0]):
        if candidate.target in _files_of(path, read_manifest(files, path)):
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
    manifest = read_manifest(files, candidate.target)
    runs = [_run_of(path) for path in _newest_in(files, folder.rpartition("/")[0])]
    if manifest.run_number in (find_latest_run(files, manifest.campaign_id), max(runs)):
        return NEWEST
    delta.remove(files, lake.options, manifest)
    # The newest manifest last: without it an earlier one would count.
    for generation in range(manifest.generation + 1):
        files.remove(f"{folder}/{manifest_name(generation)}")
    for path in _files_of(candidate.target, manifest):
        files.remove(path)
    return None


def _leftovers(
    found: Sequence[StoredFile],
    paths: Collection[str],
    manifests: Mapping[str, Manifest],
    limit: datetime,
    open_: Collection[str],
) -> Iterator[Candidate]:
    """Yield the old files among the `paths` of runs that none of the manifests names. The files of
    an export stay while its staging folder exists: its retry needs them.
    """
    needed = {file for path, manifest in manifests.items() for file in _files_of(path, manifest)}
    exports = {path.split("/")[2] for path in _staged(found)}
    for file in found:
        if (
            file.modified < limit
            and file.path in paths
            and file.path not in needed
            and partition_of(file.path) not in open_
            and _writer_of(file.path) not in exports
        ):
            yield Candidate(
                kind="leftover", target=file.path, since=file.modified, bytes=file.bytes
            )


def _is_of_a_run(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return (
        path.startswith(f"{MESSAGES}/")
        and not folder.startswith(delta.LOG)
        and name != LATEST
        and not is_draft(path)
    )


def _newest_in(files: Files, folder: str) -> list[str]:
    return select_newest_manifests(file.path for file in files.list_files(folder))


def _files_of(path: str, manifest: Manifest) -> list[str]:
    """Return the files of a run: its parts and its manifest."""
    folder = path.rpartition("/")[0]
    return [*(f"{folder}/{part.name}" for part in manifest.parts), path]


def _run_of(path: str) -> int:
    return int(path.split("/")[2].partition("=")[2])


def _writer_of(path: str) -> str:
    """Return the writer that is part of a part's name."""
    return path.rpartition("/")[2].partition(".")[0].rpartition("-")[2]


def _staged(found: Sequence[StoredFile]) -> Iterator[str]:
    return (
        file.path
        for file in found
        if file.path.startswith(f"{STAGING}/") and file.path.count("/") > 2
    )
