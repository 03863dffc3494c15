"""The register of refreshes in the lake: which are open, and which flow run owns each.

Each campaign has a folder of numbered entries, of which the newest counts. An entry is created only
if there is none with its number: of all flow runs that try, exactly one can.
"""

import os
import socket
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from blocks.storage.errors import NotInLake
from blocks.storage.files import AlreadyThere, Files
from nudgescribe.bases import Frozen
from tasks.campaigns import Refresh
from tasks.customers.staging import folder_of
from tasks.refresh.report import RefreshResult

REFRESHES = "refreshes"


class Entry(Frozen):
    """A refresh and its owner: the flow run that works on it, in the process `pid` of `host`.

    A refresh that is no longer open has ended with a `result`, or with a `problem` that no retry
    can solve; or it was released before anything was made of its list, and has neither.
    """

    refresh: Refresh
    flow_run: str
    host: str
    pid: int
    open: bool = True
    problem: str | None = None
    result: RefreshResult | None = None

    def belongs_to(self, claimant: Refresh) -> bool:
        """Tell whether the claimant's flow run owns the refresh, or began it and it has ended."""
        began_it = self.refresh.id == claimant.id
        return self.flow_run == claimant.id or (began_it and not self.open)


class Register:
    """A campaign's entries in the lake."""

    def __init__(self, files: Files, partition: str) -> None:
        self._files = files
        self._folder = f"{REFRESHES}/{partition}"

    def newest(self) -> tuple[int, Entry | None]:
        """Return the newest entry with its number; the number is 0 if there is none."""
        while names := self._files.list_names(self._folder):
            try:
                content = self._files.read(f"{self._folder}/{names[-1]}")
            except NotInLake:
                continue  # it was replaced by a newer one
            return int(names[-1].removesuffix(".json")), Entry.model_validate_json(content)
        return 0, None

    def add(self, number: int, entry: Entry) -> bool:
        """Create the entry and remove the earlier ones; return whether it is the newest. It is not
        if another flow run has created this number or a later one.
        """
        content = entry.model_dump_json(exclude_defaults=True).encode()
        path = f"{self._folder}/{number:08d}.json"
        try:
            self._files.create(path, content, private=True)
        except AlreadyThere:
            # It may be ours: if S3's answer is lost, its client sends the request again.
            if not self._files.exists(path) or self._files.read(path) != content:
                return False
        *earlier, newest = self._files.list_names(self._folder)
        if f"{self._folder}/{newest}" != path:
            # The number was free only because its entry has been removed: a newer one exists.
            self._files.remove(path)
            return False
        for name in earlier:
            self._files.remove(f"{self._folder}/{name}")
        return True


def open_refreshes(files: Files) -> dict[str, Entry]:
    """Return the entries of the open refreshes, by the partition of their campaign."""
    partitions = {path.split("/")[1] for path, *_ in files.list_files(REFRESHES)}
    newest = {partition: Register(files, partition).newest()[1] for partition in partitions}
    return {partition: entry for partition, entry in newest.items() if entry and entry.open}


def is_alive(entry: Entry) -> bool:
    """Tell whether a flow run still works on the refresh, or is suspended for its review."""
    return owner_state(entry) is not None


def expire(files: Files, partition: str, folder: str) -> bool:
    """Return whether a staging folder may be removed, and end the open refresh that it belongs to.

    The folder must stay while a flow run works on its refresh or is suspended for the review.
    """
    register = Register(files, partition)
    number, entry = register.newest()
    if entry is None or not entry.open or folder_of(entry.refresh) != folder:
        return True
    if is_alive(entry):
        return False
    problem = f"The customer list of refresh {entry.refresh.id} was removed by lake-retention."
    return register.add(number + 1, entry.model_copy(update={"open": False, "problem": problem}))


def owner_state(entry: Entry) -> str | None:
    """Return the state of the entry's flow run; None if that has ended or its process is gone."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(entry.flow_run)).state
        except ObjectNotFound:
            return None
    if state is None or state.is_final():
        return None
    # Without a worker to notice, a killed process leaves its flow run Running for ever.
    killed = entry.host == socket.gethostname() and not _process_exists(entry.pid)
    return None if state.is_running() and killed else state.name


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
