"""Old files of the lake, runs aside: staging, drafts, unfinished uploads, quarantine, plans."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from blocks.storage.files import DRAFT, Files, StoredFile
from tasks.campaigns import Refresh
from tasks.customers.staging import STAGING, folder_of
from tasks.refresh.claim import Entry, Register, expire, is_alive
from tasks.refresh.plan import PLANS
from tasks.retention.rules import OPEN, SINCE, Ages, Kind, Old, before

QUARANTINE = "quarantine"


def old_files(
    files: Files,
    found: Sequence[StoredFile],
    now: datetime,
    ages: Ages,
    open_: dict[str, Entry],
    me: Refresh,
) -> Iterator[Old]:
    """What is old in the lake, its messages aside."""
    limit = before(now, ages.staging_days)
    staging = [*_old_staging(found, limit, open_, folder_of(me))]
    yield from staging
    going = {each.what for each in staging}
    for each in found:
        if is_draft(each.path) and each.modified < limit and _staged(each.path) not in going:
            yield _old("draft", each)
    for upload in files.unfinished_uploads(limit):
        yield Old(kind="upload", what=upload.path, since=upload.started, detail=upload.upload_id)
    if ages.quarantine_days is not None:
        limit = before(now, ages.quarantine_days)
        yield from _old_in(QUARANTINE, "quarantine", found, limit, open_)
    if ages.plans_days is not None:
        limit = before(now, ages.plans_days)
        yield from _old_in(PLANS, "plan", found, limit, open_)


def remove_staging(files: Files, old: Old, seen: datetime) -> str | None:
    """Removes a staging folder; returns why it is kept. A refresh left half-way ends with it."""
    if is_younger(files, old, seen):
        return SINCE
    if old.detail and not expire(files, old.detail, old.what):
        return OPEN
    files.remove(old.what)
    return None


def remove_file(files: Files, old: Old, seen: datetime) -> str | None:
    """Removes a file; returns why it is kept."""
    if is_younger(files, old, seen):
        return SINCE
    if old.kind != "draft" and is_open(files, place_of(old.what)):
        return OPEN
    files.remove(old.what)
    return None


def is_younger(files: Files, old: Old, seen: datetime) -> bool:
    """Whether it was written to since it was seen."""
    return any(each.modified >= seen for each in files.list_files(old.what))


def is_draft(path: str) -> bool:
    return path.rpartition("/")[2].startswith(DRAFT)


def place_of(path: str) -> str:
    """The campaign's, or whatever else the second folder of a path stands for."""
    return path.split("/")[1]


def is_open(files: Files, place: str) -> bool:
    """Whether a campaign has a refresh open now."""
    _, entry = Register(files, place).newest()
    return entry is not None and entry.open


def _old_staging(
    found: Sequence[StoredFile], limit: datetime, open_: dict[str, Entry], mine: str
) -> Iterator[Old]:
    """The staging folders nothing was written to lately and that no refresh needs."""
    folders: dict[str, list[StoredFile]] = {}
    for each in found:
        if each.path.startswith(f"{STAGING}/"):
            folders.setdefault(_staged(each.path), []).append(each)
    owners = {folder_of(entry.refresh): place for place, entry in open_.items()}
    for folder, some in folders.items():
        written = max(each.modified for each in some)
        place = owners.get(folder, "")
        if written < limit and folder != mine and not (place and is_alive(open_[place])):
            size = sum(each.bytes for each in some)
            yield Old(kind="staging", what=folder, since=written, bytes=size, detail=place)


def _old_in(
    folder: str, kind: Kind, found: Sequence[StoredFile], limit: datetime, open_: Collection[str]
) -> Iterator[Old]:
    """Old files of a folder that no open refresh needs."""
    for each in found:
        if (
            each.modified < limit
            and each.path.startswith(f"{folder}/")
            and place_of(each.path) not in open_
            and not is_draft(each.path)
        ):
            yield _old(kind, each)


def _staged(path: str) -> str:
    """The staging folder a path belongs to."""
    return "/".join(path.split("/")[:2])


def _old(kind: Kind, found: StoredFile) -> Old:
    return Old(kind=kind, what=found.path, since=found.modified, bytes=found.bytes)
