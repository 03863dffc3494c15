"""The owner of a refresh: which flow run works on it, in which process, known to which server."""

import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled

from nudgescribe.bases import Frozen

SERVER_ID = "nudgeflow_server_id"
SUSPENDED = "Suspended"
UNKNOWN = "Unknown"
"""In place of the state of a flow run that this server cannot know of."""


class Owner(Frozen):
    """A flow run and its process; `server` is the id of its Prefect server, "" for owners of
    version 0.1, and `machine` that of the boot and the PID namespace that `pid` belongs to.

    `gives_up` tells that it owns the refresh only to end it.

    `server_url` and `host` are for people.
    """

    flow_run: str
    server: str = ""
    server_url: str = ""
    machine: str = ""
    host: str
    pid: int
    process_start: str | None = None
    gives_up: bool = False

    @property
    def name(self) -> str:
        """Return what messages call it."""
        return f"Flow run {self.flow_run}"


def this_process(flow_run: str) -> Owner:
    """Return this process as the owner that works for a flow run."""
    server, url = this_server()
    return Owner(
        flow_run=flow_run,
        server=server,
        server_url=url,
        machine=this_machine(),
        host=socket.gethostname(),
        pid=os.getpid(),
        process_start=process_start(os.getpid()),
    )


def this_server() -> tuple[str, str]:
    """Return the id of the Prefect server, and its address without user and password."""
    parts = urlsplit(PREFECT_API_URL.value() or "http://a-server-of-this-process")
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return _server_id(address), address


@cache
def _server_id(address: str) -> str:
    """Return the id that all clients of the server find in one of its variables; the first of them
    creates it.
    """
    with get_client(sync_client=True) as client:
        while True:
            if saved := client.read_variable_by_name(SERVER_ID):
                return str(saved.value)
            try:
                client.create_variable(VariableCreate(name=SERVER_ID, value=str(uuid4())))
            except ObjectAlreadyExists:
                continue


def owner_state(owner: Owner) -> str | None:
    """Return the state of the owner's flow run; None if that has ended or its process is gone,
    UNKNOWN if this server cannot tell: it is another one's.
    """
    if owner.server not in ("", this_server()[0]):
        return UNKNOWN
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(owner.flow_run)).state
        except ObjectNotFound:
            return None if owner.server else UNKNOWN
        except ValueError:
            return UNKNOWN  # somebody else has written this
    if state is None or state.is_final():
        return None
    # Without a worker to notice, a killed process leaves its flow run Running for ever.
    return None if state.is_running() and _is_gone(owner) else state.name


def has_failed(owner: Owner) -> bool:
    """Return whether the owner's flow run, which has ended, is known to have met an error."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(owner.flow_run)).state
        except ObjectNotFound:
            return False
    return state is not None and state.is_failed()


def cancel_suspended(owner: Owner) -> None:
    """Cancel the owner's flow run if it is suspended on this server: nobody is to resume it."""
    if owner_state(owner) == SUSPENDED:
        with get_client(sync_client=True) as client:
            cancelled = Cancelled(message="Its refresh was abandoned.")
            client.set_flow_run_state(UUID(owner.flow_run), cancelled, force=True)


def this_machine() -> str:
    """Return what process ids are unique in: this boot and PID namespace, or this host."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """Return when a process started, in ticks since the boot; None where that is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_gone(owner: Owner) -> bool:
    """Return whether the owner's process has surely ended: it ran here, and is no longer there."""
    if owner.machine != this_machine():
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    started = process_start(owner.pid)
    return None not in (started, owner.process_start) and started != owner.process_start
