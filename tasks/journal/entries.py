"""Entries in a folder of the lake: each is created once, by one writer, and never changed."""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from prefect.runtime import flow_run
from pydantic import BaseModel, Field, ValidationError

from blocks.storage.errors import Damaged, LakeError, NotInLake, StoreUnusable, TooNew
from blocks.storage.files import AlreadyThere, Files
from nudgescribe import __version__
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError, Retryable
from tasks.journal.owners import Owner

SCHEMA_VERSION = 2
"""Of the entries. Version 0.1 of the project had none; its register counts as 1."""
PROJECT = f"nudgeflow {__version__}"

M = TypeVar("M", bound=BaseModel)


class Step(StrEnum):
    """The entries that a journal has once, in their order."""

    CLAIMED = "00-claimed"
    FOUND = "01-found"
    EXTRACTED = "02-extracted"
    VALIDATED = "03-validated"
    COMPARED = "04-compared"
    GROUPED = "05-grouped"
    CHANGED = "06-changed"
    UPLOADED = "06-uploaded"
    INITIATED = "07-initiated"
    PUBLISHED = "08-published"
    COMMITTED = "09-committed"
    COUNTED = "98-counted"
    ENDED = "99-ended"


class Series(StrEnum):
    """The entries that a journal has any number of, numbered from 1; the newest counts."""

    OWNER = "owner"
    PROBLEM = "problem"
    REVIEW = "review"
    SUPPRESSION = "suppression"


_NUMBERED = re.compile(rf"({'|'.join(Series)})-(\d{{4}})\.json")
_STEPS = {f"{step}.json": step for step in Step}


class JournalDamaged(Damaged):
    """An entry of a journal cannot be read."""

    advice = "Restore it from a backup, or end the refresh by the flow abandon-refresh."


@contextmanager
def damage(path: str) -> Generator[None]:
    """Raise JournalDamaged for what the store does not give out, a folder for instance."""
    try:
        yield
    except (NotInLake, Retryable, StoreUnusable, JournalDamaged):
        raise
    except LakeError as error:
        raise JournalDamaged(f"{path} cannot be read: {error.problem}") from None


class TakenOver(NudgeflowError):
    """The flow run no longer owns its refresh."""

    advice = "This flow run stops here: another one continues its work, or a person has ended it."


class Header(Frozen):
    """What each entry begins with: who wrote it, in which form, and when."""

    project: str
    schema_version: int
    written_at: datetime


class Entry(Header):
    """An entry, its content not looked at."""

    content: dict[str, Any] = Field(default={})


@dataclass(frozen=True)
class Contents:
    """The steps that a journal has, and the newest number of each of its series."""

    steps: set[Step]
    newest: dict[Series, int]


class Journal:
    """The entries of one refresh, or of another flow's run, in a folder of the lake.

    Files that are no entries are passed over. All methods raise JournalDamaged for an entry that
    cannot be read, TooNew for one of a later version, and the errors of `Files`.
    """

    def __init__(self, files: Files, folder: str) -> None:
        assert folder
        self.folder = folder
        self._files = files

    def contents(self) -> "Contents":
        """Return which entries are there."""
        with damage(self.folder):
            names = self._files.list_names(self.folder)
        numbered = (found for found in map(_NUMBERED.fullmatch, sorted(names)) if found)
        return Contents(
            steps={_STEPS[name] for name in names if name in _STEPS},
            newest={Series(found[1]): int(found[2]) for found in numbered},
        )

    def find(self, step: Step, kind: type[M]) -> M | None:
        """Return the entry of a step; None if there is none."""
        return self._read(f"{step}.json", kind)

    def entries(self) -> dict[Step, Entry]:
        """Return the entries of all steps."""
        found = {step: self._entry(f"{self.folder}/{step}.json") for step in self.contents().steps}
        return {step: entry for step, entry in found.items() if entry}

    def parse(self, step: Step, entry: Entry, kind: type[M]) -> M:
        """Return the content of a step's entry."""
        return _content(f"{self.folder}/{step}.json", entry, kind)

    def create(self, step: Step, content: BaseModel) -> bool:
        """Write the entry of a step; return False if somebody else has done so before."""
        return self._create(f"{step}.json", content)

    def add(self, step: Step, content: M) -> M:
        """Write the entry of a step, and return what is there: this, or what somebody else wrote
        before.
        """
        there = None if self.create(step, content) else self.find(step, type(content))
        return content if there is None else there

    def step(self, step: Step, kind: type[M], work: Callable[[], M]) -> M:
        """Return the entry of a step, or do its `work` and write down what it returns.

        Raises TakenOver if the work is another flow run's meanwhile.
        """
        if found := self.find(step, kind):
            return found
        self.check_owner()
        return self.add(step, work())

    def check_owner(self) -> None:
        """Raise TakenOver if another flow run has become the owner, or a person has ended it."""
        contents = self.contents()
        owner = self.numbered(Series.OWNER, contents.newest.get(Series.OWNER, 0), Owner)
        if owner and flow_run.id not in (None, owner.flow_run):
            raise TakenOver(f"Flow run {owner.flow_run} works on {self.folder} now.")
        if Step.ENDED in contents.steps:
            raise TakenOver(f"{self.folder} has been ended.")

    def numbered(self, series: Series, number: int, kind: type[M]) -> M | None:
        """Return entry `number` of a series; None if there is none, as of number 0."""
        return self._read(_name(series, number), kind) if number else None

    def newest(self, series: Series, kind: type[M]) -> tuple[int, M | None]:
        """Return the newest entry of a series with its number; the number is 0 without one."""
        number = self.contents().newest.get(series, 0)
        return number, self.numbered(series, number, kind)

    def append(self, series: Series, number: int, content: BaseModel) -> bool:
        """Write entry `number` of a series; return False if somebody else has done so before."""
        return self._create(_name(series, number), content)

    def append_next(self, series: Series, content: BaseModel) -> None:
        """Write the entry of a series that follows its newest one."""
        self.append(series, self.contents().newest.get(series, 0) + 1, content)

    def _create(self, name: str, content: BaseModel) -> bool:
        """Create an entry; return False if there is another one of this name."""
        body = content.model_dump(mode="json", exclude_defaults=True)
        entry = Entry(**dict(_header()), content=body).model_dump_json(indent=1).encode()
        path = f"{self.folder}/{name}"
        try:
            self._files.create(path, entry, private=True)
        except AlreadyThere:
            # It may be ours: if S3's answer is lost, its client sends the request again.
            return self._files.read(path) == entry
        return True

    def _read(self, name: str, kind: type[M]) -> M | None:
        path = f"{self.folder}/{name}"
        entry = self._entry(path)
        return _content(path, entry, kind) if entry else None

    def _entry(self, path: str) -> Entry | None:
        try:
            with damage(path):
                content = self._files.read(path)
        except NotInLake:
            return None
        return _parse(path, content)


def fence() -> bytes:
    """Return the content of a file that tells older versions to stop."""
    return _header().model_dump_json(indent=1).encode()


def check_version(files: Files, path: str) -> None:
    """Raise TooNew if the fence was written by a later version, JournalDamaged."""
    with damage(path):
        content = files.read(path)
    _parse(path, content)


def _header() -> Header:
    return Header(project=PROJECT, schema_version=SCHEMA_VERSION, written_at=datetime.now(UTC))


def _parse(path: str, content: bytes) -> "Entry":
    """Return an entry. Raises JournalDamaged, TooNew."""
    try:
        entry = Entry.model_validate_json(content)
    except ValidationError:
        raise JournalDamaged.at(path) from None
    if entry.schema_version > SCHEMA_VERSION:
        raise TooNew(
            f"{path} was written by {entry.project} in version {entry.schema_version} of the "
            f"journal; {PROJECT} knows versions up to {SCHEMA_VERSION}."
        )
    return entry


def _content(path: str, entry: Entry, kind: type[M]) -> M:
    try:
        return kind.model_validate(entry.content)
    except ValidationError:
        raise JournalDamaged(f"{path} does not hold what its name says.") from None


def _name(series: Series, number: int) -> str:
    return f"{series}-{number:04d}.json"
