"""Old runs of the lake, and files of messages that are no longer of any."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from blocks import DataLake
from blocks.storage import delta
from blocks.storage.files import Files, StoredFile
from blocks.storage.manifest import LATEST, MESSAGES, Manifest, manifest_name
from blocks.storage.reader import find_latest_run, read_manifest, select_newest_manifests
from tasks.customers.staging import STAGING
from tasks.retention.files import is_draft, is_open, is_younger, place_of
from tasks.retention.rules import OPEN, SINCE, Ages, Old, before

NEWEST = "It is the campaign's newest run."
NEEDED = "Its run is made of it."


def old_runs(
    files: Files, found: Sequence[StoredFile], now: datetime, ages: Ages, open_: Collection[str]
) -> Iterator[Old]:
    """Leftovers, then runs; never a campaign's newest run, or anything of one that has a refresh
    open.
    """
    written = {each.path: each.modified for each in found if _is_of_a_run(each.path)}
    manifests = {path: read_manifest(files, path) for path in select_newest_manifests(written)}
    needed = {each for path, one in manifests.items() for each in _made_of(path, one)}
    # What its export may still go by.
    writers = {path.split("/")[2] for path in _staged(found)}
    limit = before(now, ages.staging_days)
    for each in found:
        if (
            each.modified < limit
            and each.path in written
            and each.path not in needed
            and place_of(each.path) not in open_
            and _writer_of(each.path) not in writers
        ):
            yield Old(kind="leftover", what=each.path, since=each.modified, bytes=each.bytes)
    if ages.runs_kept is None and ages.runs_days is None:
        return
    campaigns: dict[str, list[str]] = {}
    for path in sorted(manifests, key=lambda path: manifests[path].run_number, reverse=True):
        campaigns.setdefault(place_of(path), []).append(path)
    for place, runs in campaigns.items():
        latest = find_latest_run(files, manifests[runs[0]].campaign_id)
        for path in runs[ages.runs_kept or 1 :]:
            one, since = manifests[path], written[path]
            too_young = ages.runs_days is not None and since >= before(now, ages.runs_days)
            if place not in open_ and one.run_number != latest and not too_young:
                yield Old(kind="lake run", what=path, since=since, bytes=one.bytes)


def remove_leftover(files: Files, old: Old, seen: datetime) -> str | None:
    """Removes a file of messages that no newest manifest names; returns why it is kept."""
    if is_younger(files, old, seen):
        return SINCE
    if is_open(files, place_of(old.what)):
        return OPEN
    for path in _newest_in(files, old.what.rpartition("/")[0]):
        if old.what in _made_of(path, read_manifest(files, path)):
            return NEEDED
    files.remove(old.what)
    return None


def remove_run(lake: DataLake, old: Old) -> str | None:
    """Removes the run whose newest manifest `old` is; returns why it is kept.

    Readers see the run whole or not at all: its parts go last.
    """
    files, folder = lake.files, old.what.rpartition("/")[0]
    newest = _newest_in(files, folder)
    if not newest:
        return None
    if newest != [old.what]:
        return SINCE
    if is_open(files, place_of(folder)):
        return OPEN
    manifest = read_manifest(files, old.what)
    whole = _newest_in(files, folder.rpartition("/")[0])
    if manifest.run_number in (
        find_latest_run(files, manifest.campaign_id),
        max(_run_of(path) for path in whole),
    ):
        return NEWEST
    delta.remove(files, lake.options, manifest)
    # The newest last: without it an earlier one would count.
    for generation in range(manifest.generation + 1):
        files.remove(f"{folder}/{manifest_name(generation)}")
    for path in _made_of(old.what, manifest):
        files.remove(path)
    return None


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


def _made_of(path: str, manifest: Manifest) -> list[str]:
    """The files of a run: its parts, and its manifest's own."""
    folder = path.rpartition("/")[0]
    return [*(f"{folder}/{part.name}" for part in manifest.parts), path]


def _run_of(path: str) -> int:
    return int(path.split("/")[2].partition("=")[2])


def _writer_of(path: str) -> str:
    """Who wrote a part, by its name."""
    return path.rpartition("/")[2].partition(".")[0].rpartition("-")[2]


def _staged(found: Sequence[StoredFile]) -> Iterator[str]:
    return (
        each.path
        for each in found
        if each.path.startswith(f"{STAGING}/") and each.path.count("/") > 2
    )
