"""The history of a campaign's refreshes: the journal of each, in folders numbered from 1.

The newest refresh tells who has the campaign. Files that are none of ours are passed over.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

from blocks.storage.errors import LakeError, LakeUnreachable, NotInLake, TooNew
from blocks.storage.files import AlreadyThere, Files
from tasks.journal.entries import (
    Journal,
    JournalDamaged,
    Series,
    Step,
    check_version,
    damage,
    fence,
)
from tasks.journal.history import record
from tasks.journal.owners import Owner, owner_state
from tasks.journal.refresh import REFRESHES, Claimed, Problem, Refresh
from tasks.refresh import old_register
from tasks.refresh.report import RefreshResult
from tasks.refresh.standing import Ended, Standing

FENCE = "schema_version.json"
"""Version 0.1 does not see our folders; it stops at this file, which it cannot read."""
_ENTRY = re.compile(r"(\d{8})(\.json)?")
_UNREADABLE = Refresh(id="unreadable", started=datetime.min.replace(tzinfo=UTC))

OpenRefreshes = dict[str, Standing | LakeError]


class History:
    """The refreshes of a campaign; `partition` is the name of its folders, `campaign_id=…`."""

    def __init__(self, files: Files, partition: str) -> None:
        self.folder = f"{REFRESHES}/{partition}"
        self._files = files

    def journal(self, number: int) -> Journal:
        """Return the journal of the refresh of this number."""
        return Journal(self._files, f"{self.folder}/{number:08d}")

    def newest(self) -> Standing | None:
        """Return where the newest refresh stands; None if there has been none.

        Raises JournalDamaged, TooNew.
        """
        names = self._names()
        if FENCE in names:
            with suppress(JournalDamaged, NotInLake):
                check_version(self._files, f"{self.folder}/{FENCE}")
        entries = [*self._entries(names)]
        for number, is_old in entries:
            copied = (number, True) in entries
            standing = self._read_old(number) if is_old else self._read(number, copied)
            if standing:
                return standing
        return None

    def newest_number(self) -> int:
        """Return the number of the newest refresh, even of one that cannot be read.

        Raises JournalDamaged if the campaign's folder cannot be listed.
        """
        entries = self._entries(self._names())
        return next((number for number, is_old in entries if is_old or self._has_begun(number)), 0)

    def begin(self, number: int, claimed: Claimed) -> bool:
        """Begin the refresh of this number; return False if another flow run was faster."""
        self._fence()
        if not self.journal(number).create(Step.CLAIMED, claimed):
            return False
        if self.newest_number() > number:
            # The number was free only because retention had removed the refresh that had it.
            self._files.remove(self.journal(number).folder)
            return False
        return True

    def ended_of(self, claimant: Refresh) -> Standing | None:
        """Return the newest refresh that the claimant's flow run began or owned, if it has ended.

        None if it was released: then nothing had been changed.
        """
        for number in range(self.newest_number(), 0, -1):
            with suppress(JournalDamaged):
                standing = self._read(number, copied=False)
                if standing and standing.ended and standing.belongs_to(claimant):
                    return standing if standing.ended.outcome != "released" else None
        return None

    def last_result(self) -> RefreshResult | None:
        """Return the result of the newest refresh that has one; None if there is none."""
        for number in range(self.newest_number(), 0, -1):
            ended = self._ended(self.journal(number))
            if ended and ended.result:
                return ended.result
        return None

    def knows(self, claimant: Refresh) -> bool:
        """Return whether the claimant's flow run has begun or owned a refresh that is here; True
        also if one cannot be read.
        """
        names = self._files.list_names(self.folder)
        try:
            return any(claimant.id in self._workers(*entry) for entry in self._entries(names))
        except (JournalDamaged, TooNew):
            return True

    def has_lost_any(self) -> bool:
        """Return whether a journal before the newest one is missing, as retention leaves it."""
        numbers = {number for number, _ in self._entries(self._names())}
        return not numbers.issuperset(range(1, self.newest_number()))

    def _workers(self, number: int, is_old: bool) -> set[str]:
        """Return the flow runs that have worked on a refresh."""
        if is_old:
            old = self._read_old(number)
            return {old.owner.flow_run} if old and old.owner else set()
        journal = self.journal(number)
        claimed = journal.find(Step.CLAIMED, Claimed)
        count = journal.contents().newest.get(Series.OWNER, 0)
        owners = [journal.numbered(Series.OWNER, one, Owner) for one in range(1, count + 1)]
        begun_by = [claimed.owner] if claimed else []
        return {owner.flow_run for owner in [*begun_by, *owners] if owner}

    def abandoned(self, number: int) -> str:
        """Return who abandoned the refresh of this number, and why, or that its end cannot be read;
        "" if it ended otherwise.

        Those that have changed nothing since are passed over.
        """
        for before in range(number, 0, -1):
            ended = self._ended(self.journal(before))
            if ended and ended.outcome != "released":
                return ended.problem if ended.outcome in ("abandoned", "unreadable") else ""
        return ""

    @staticmethod
    def _ended(journal: Journal) -> Ended | None:
        """Return how a refresh ended, even where the entry that tells it cannot be read."""
        try:
            return journal.find(Step.ENDED, Ended)
        except JournalDamaged as error:
            return Ended(outcome="unreadable", problem=error.problem.rstrip("."))

    def _has_begun(self, number: int) -> bool:
        """Return whether a folder holds entries of ours: anybody may have made it."""
        try:
            contents = self.journal(number).contents()
        except JournalDamaged:
            return True
        return bool(contents.steps or contents.newest)

    def take_over(self, standing: Standing, owner: Owner) -> bool:
        """Make `owner` the newest one; return False if another flow run was faster."""
        self._fence()
        journal = self.journal(standing.number)
        if not standing.refresh.journal:
            old_register.copy(self._files, standing, journal)
        return journal.append(Series.OWNER, standing.attempt + 1, owner)

    def end(self, number: int, ended: Ended) -> None:
        """End a refresh, unless it has ended before; its row in the history tells so."""
        self._fence()
        journal = self.journal(number)
        is_new = journal.create(Step.ENDED, ended)
        record(self._files, journal.folder, count=is_new)

    def _names(self) -> list[str]:
        with damage(self.folder):
            return self._files.list_names(self.folder)

    def _fence(self) -> None:
        with suppress(AlreadyThere):
            self._files.create(f"{self.folder}/{FENCE}", fence(), private=True)

    @staticmethod
    def _entries(names: list[str]) -> Iterator[tuple[int, bool]]:
        """Yield numbers, the highest first, and whether their entry is one of version 0.1."""
        matches = [match for match in map(_ENTRY.fullmatch, names) if match]
        entries = [(int(match[1]), match[2] is not None) for match in matches]
        yield from sorted(entries, key=lambda entry: (-entry[0], entry[1]))

    def _read_old(self, number: int) -> Standing | None:
        return old_register.read(self._files, f"{self.folder}/{number:08d}.json", number)

    def _read(self, number: int, copied: bool) -> Standing | None:
        """Return where a refresh stands; None for a folder without entries of ours, and for one
        that is being `copied` from an entry of version 0.1.
        """
        journal = self.journal(number)
        contents = journal.contents()
        if not (contents.steps or contents.newest):
            return None
        ended = self._ended(journal)
        try:
            claimed = journal.find(Step.CLAIMED, Claimed)
            if claimed is None and copied and ended is None:
                return None
            if claimed is None:
                raise JournalDamaged(f"{journal.folder} has no {Step.CLAIMED}.json.")
            attempt = contents.newest.get(Series.OWNER, 0)
            owner = journal.numbered(Series.OWNER, attempt, Owner)
            last = contents.newest.get(Series.PROBLEM, 0)
            problem = journal.numbered(Series.PROBLEM, last, Problem)
            noted = problem is not None and problem.attempt == attempt
        except JournalDamaged:
            if ended is None:
                raise
            # A person has ended it because of the damage.
            return Standing(number=number, refresh=_UNREADABLE, ended=ended)
        return Standing(
            number=number,
            refresh=claimed.refresh.model_copy(update={"journal": journal.folder}),
            owner=owner or claimed.owner,
            attempt=attempt,
            kept=Step.COMPARED in contents.steps,
            initiated=Step.INITIATED in contents.steps,
            noted=noted,
            failed=noted and problem is not None and not problem.retryable,
            ended=ended,
        )


def open_refreshes(files: Files) -> OpenRefreshes:
    """Return the open refreshes by the partition of their campaign, and the error of those whose
    journal cannot be read: they may be open.
    """
    return {
        partition: newest
        for partition, newest in newest_refreshes(files)
        if isinstance(newest, LakeError) or newest.ended is None
    }


def newest_refreshes(files: Files) -> Iterator[tuple[str, Standing | LakeError]]:
    """Yield each campaign's partition with its newest refresh, or the error if it has a journal
    that cannot be read.
    """
    for partition in files.list_names(REFRESHES):
        if newest := newest_refresh(files, partition):
            yield partition, newest


def newest_refresh(files: Files, partition: str) -> Standing | LakeError | None:
    """Return where the campaign's newest refresh stands, or the error if a journal cannot be read:
    the refresh may be open then.
    """
    try:
        standing = History(files, partition).newest()
    except LakeUnreachable:
        raise
    except LakeError as error:
        return error
    if standing and standing.ended and standing.ended.outcome == "unreadable":
        return JournalDamaged(standing.ended.problem)
    return standing


def is_alive(standing: Standing | LakeError | None) -> bool:
    """Return whether a flow run works on an open refresh, or may do so, or is suspended for it."""
    owner = standing.owner if isinstance(standing, Standing) else None
    return owner is not None and owner_state(owner) is not None


def expire(
    files: Files, partition: str, folder: str, has_started: Callable[[Refresh], bool]
) -> bool:
    """Return whether a staging folder may be removed.

    It stays while a flow run works on its refresh or is suspended for the review, or if the journal
    cannot be read. A refresh without a rerun is released; another one stays open: it is finished
    without its list. `has_started` tells of a rerun that the journal does not know.
    """
    standing = newest_refresh(files, partition)
    if isinstance(standing, LakeError):
        return False
    if standing is None or standing.ended or standing.refresh.staging != folder:
        return True
    if is_alive(standing):
        return False
    if not (standing.initiated or has_started(standing.refresh)):
        problem = f"The list of refresh {standing.refresh.id} was removed by lake-retention."
        ended = Ended(outcome="released", problem=problem)
        History(files, partition).end(standing.number, ended)
    return True
