"""Which refresh of a campaign is open: one at a time, whatever flow runs work on it.

A folder of the lake for each campaign holds numbered entries. Whoever adds the next number, and of
all who try exactly one does, has the campaign; the newest entry counts.
"""

import os
import socket
from typing import Literal
from uuid import UUID

from prefect import task
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake
from blocks.storage.errors import NotInLake
from blocks.storage.files import AlreadyThere, Files
from blocks.storage.manifest import campaign_partition
from nudgescribe.errors import NudgeflowError
from nudgescribe.polling import Pace, poll
from tasks.campaigns import Refresh
from tasks.customers.staging import folder_of, is_kept
from tasks.policies import READ
from tasks.refresh.report import RefreshResult

REFRESHES = "refreshes"
PACE = Pace(longest=30)

Overlap = Literal["skip", "join", "fail"]


class Entry(BaseModel):
    """A refresh and the flow run that works on it, in the process `pid` of `host`; ended with a
    `result`, or with a `problem` that no retry mends, or let go before anything was made of it.
    """

    model_config = ConfigDict(frozen=True)

    refresh: Refresh
    flow_run: str
    host: str
    pid: int
    open: bool = True
    problem: str | None = None
    result: RefreshResult | None = None


class Claim(BaseModel):
    """The refresh to work on; without one, the state to end in, what to say and what came of it."""

    model_config = ConfigDict(frozen=True)

    refresh: Refresh | None = None
    outcome: Literal["Skipped", "Joined", "Completed"] = "Completed"
    said: str = ""
    result: RefreshResult | None = None


class RefreshOpen(NudgeflowError):
    advice = "Let it end or retry its flow run; with options.overlap = join it is taken over."


class RefreshEnded(NudgeflowError):
    advice = "It cannot be continued. Start a new refresh."


class Register:
    """A campaign's entries in the lake."""

    def __init__(self, files: Files, place: str) -> None:
        self._files = files
        self._folder = f"{REFRESHES}/{place}"

    def newest(self) -> tuple[int, Entry | None]:
        """The newest entry with its number, which is 0 if there is none."""
        while names := self._files.list_names(self._folder):
            try:
                content = self._files.read(f"{self._folder}/{names[-1]}")
            except NotInLake:
                continue  # there is a newer one since
            return int(names[-1].removesuffix(".json")), Entry.model_validate_json(content)
        return 0, None

    def add(self, number: int, entry: Entry) -> bool:
        """Whether the entry could take this number and is the newest; the ones before go."""
        content = entry.model_dump_json(exclude_defaults=True).encode()
        path = f"{self._folder}/{number:08d}.json"
        try:
            self._files.create(path, content, private=True)
        except AlreadyThere:
            # It may be ours: an answer of S3 is lost, and its client sends the same again.
            if not self._files.exists(path) or self._files.read(path) != content:
                return False
        *earlier, newest = self._files.list_names(self._folder)
        if f"{self._folder}/{newest}" != path:
            # Others were quicker, more than once: the number was free only since it is past.
            self._files.remove(path)
            return False
        for name in earlier:
            self._files.remove(f"{self._folder}/{name}")
        return True


@task(**READ)
def claim_campaign(
    lake: DataLake, campaign_id: str, me: Refresh, overlap: Overlap, minutes: float
) -> Claim:
    """The refresh this flow run is to work on: its own, or one that an earlier flow run has left
    half-way. Whatever it is, no other one works on the campaign then.

    Raises RefreshOpen if another refresh is open and `overlap` is fail, or if it is join and the
    other one still works after `minutes`; RefreshEnded.
    """
    files = lake.files
    register = Register(files, campaign_partition(campaign_id))
    waited_for, seen = "", ""

    def look() -> Claim | None:
        nonlocal waited_for, seen
        number, earlier = register.newest()
        # A flow run that comes back after others begins anew, and not with what it had then.
        refresh = me.model_copy(update={"id": f"{me.id}-{number}"}) if number else me
        if earlier is None:
            pass
        elif earlier.flow_run == me.id or (not earlier.open and earlier.refresh.id == me.id):
            if earlier.result:
                files.remove(folder_of(earlier.refresh))
                return Claim(said="It was finished by an earlier try.", result=earlier.result)
            if earlier.problem:
                raise RefreshEnded(earlier.problem)
            refresh = earlier.refresh
        elif not earlier.open:
            if earlier.result and earlier.refresh.id == waited_for:
                return _joined(earlier, "has finished")
            files.remove(folder_of(earlier.refresh))
        elif (state := _state_of(earlier)) or is_kept(files, earlier.refresh):
            seen = f"Flow run {earlier.flow_run}, {state or 'which has ended half-way'},"
            told = f"{seen} has a refresh of campaign {campaign_id} open."
            if overlap == "fail":
                raise RefreshOpen(told)
            if overlap == "skip":
                return Claim(outcome="Skipped", said=told)
            if state == "Suspended":
                return _joined(earlier, "waits for its review and goes on by itself")
            if state:
                if waited_for != (waited_for := earlier.refresh.id):
                    get_run_logger().info("%s Waiting for it.", told)
                return None
            get_run_logger().info("%s It is continued here.", told)
            refresh = earlier.refresh
        else:
            files.remove(folder_of(earlier.refresh))
        entry = Entry(refresh=refresh, flow_run=me.id, host=socket.gethostname(), pid=os.getpid())
        return Claim(refresh=refresh) if register.add(number + 1, entry) else None

    for claim in poll(look, minutes * 60, PACE):
        if claim:
            return claim
    raise RefreshOpen(f"{seen} still had campaign {campaign_id} after {minutes:g} minutes.")


@task(**READ)
def close_refresh(
    lake: DataLake,
    campaign_id: str,
    me: Refresh,
    refresh: Refresh,
    result: RefreshResult | None = None,
    problem: str | None = None,
) -> None:
    """Lets go of the campaign and removes the refresh's customer list from the lake's staging.

    What came of it is noted first, for a retry to find.
    """
    files = lake.files
    register = Register(files, campaign_partition(campaign_id))
    number, entry = register.newest()
    if entry is not None and entry.flow_run == me.id:
        ended = entry.model_copy(update={"open": False, "result": result, "problem": problem})
        register.add(number + 1, ended)
        files.remove(folder_of(refresh))


@task(**READ)
def release_refresh(lake: DataLake, campaign_id: str, me: Refresh, refresh: Refresh) -> None:
    """Lets go of the campaign and the list, unless something was made of the list already."""
    if not is_kept(lake.files, refresh):
        close_refresh.fn(lake, campaign_id, me, refresh)


def open_refreshes(files: Files) -> dict[str, Entry]:
    """The entries of the open refreshes, by the place of their campaign."""
    places = {path.split("/")[1] for path, *_ in files.list_files(REFRESHES)}
    newest = {place: Register(files, place).newest()[1] for place in places}
    return {place: entry for place, entry in newest.items() if entry is not None and entry.open}


def is_alive(entry: Entry) -> bool:
    """Whether somebody still works on a refresh, or it waits for its review."""
    return _state_of(entry) is not None


def expire(files: Files, place: str, folder: str) -> bool:
    """Whether a campaign's old staging folder may go. A refresh left half-way ends with its list;
    one that somebody still works on, or that waits for its review, keeps it.
    """
    register = Register(files, place)
    number, entry = register.newest()
    if entry is None or not entry.open or folder_of(entry.refresh) != folder:
        return True
    if is_alive(entry):
        return False
    problem = f"The customer list of refresh {entry.refresh.id} was removed, being old."
    return register.add(number + 1, entry.model_copy(update={"open": False, "problem": problem}))


def _joined(entry: Entry, what: str) -> Claim:
    said = f"Flow run {entry.flow_run} refreshes the campaign and {what}."
    return Claim(outcome="Joined", said=said, result=entry.result)


def _state_of(entry: Entry) -> str | None:
    """The state of the flow run that works on it; None if it works no more."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(entry.flow_run)).state
        except ObjectNotFound:
            return None
    if state is None or state.is_final():
        return None
    # Where no worker watches over it, a killed process leaves its flow run Running for good.
    gone = entry.host == socket.gethostname() and not _is_alive(entry.pid)
    return None if state.is_running() and gone else state.name


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
