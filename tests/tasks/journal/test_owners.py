"""Owners: a flow run is taken for ended only where that can be known."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from socket import gethostname
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed, Running, Suspended

from tasks.journal import owners
from tasks.journal.owners import (
    UNKNOWN,
    Owner,
    has_failed,
    owner_state,
    process_start,
    this_machine,
    this_process,
    this_server,
)

ROOT = Path(__file__).parents[3]
Owned = Callable[[State[object]], Owner]


@flow(name="campaign-refresh-stand-in")
def nothing() -> None: ...


@pytest.fixture
def owned(prefect_server: None) -> Owned:
    """A flow run in a state, of this process."""

    def create(state: State[object]) -> Owner:
        with get_client(sync_client=True) as client:
            return this_process(str(client.create_flow_run(nothing, state=state).id))

    return create


def test_owner_has_the_state_of_its_flow_run(owned: Owned) -> None:
    states = [Running(), Suspended(), Completed(), Crashed()]
    assert [owner_state(owned(state)) for state in states] == ["Running", "Suspended", None, None]


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"flow_run": str(uuid4())}, None),
        ({"flow_run": str(uuid4()), "server": ""}, UNKNOWN),
        ({"server": "another"}, UNKNOWN),
        ({"flow_run": "no id of Prefect's"}, UNKNOWN),
        ({"server": ""}, "Running"),
        ({"pid": 2**22 + 1}, None),
        ({"process_start": "1"}, None),
        ({"process_start": None}, "Running"),
        ({"pid": 1, "process_start": None}, "Running"),
        ({"pid": 2**22 + 1, "machine": "another boot, or PID namespace"}, "Running"),
    ],
    ids=[
        "deleted",
        "of version 0.1, not found",
        "of another server",
        "written by somebody",
        "of version 0.1",
        "process gone",
        "process id used again",
        "start unknown",
        "process of another user",
        "process elsewhere",
    ],
)
def test_running_owner_is_ended_only_where_that_is_known(
    owned: Owned, change: dict[str, object], state: str | None
) -> None:
    assert owner_state(owned(Running()).model_copy(update=change)) == state


def test_ended_owner_has_failed_only_where_that_is_known(owned: Owned) -> None:
    failed = owned(Failed())
    deleted = failed.model_copy(update={"flow_run": str(uuid4())})
    owners = [failed, owned(Completed()), owned(Crashed()), deleted]
    assert [has_failed(owner) for owner in owners] == [True, False, False, False]


def test_machine_without_proc_is_its_host_and_knows_no_start_of_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.journal.owners.Path", lambda path: Path("/nowhere") / path[1:])
    assert this_machine() == gethostname()
    assert process_start(os.getpid()) is None


def test_server_has_one_id_for_all_clients_and_an_address_without_password(
    prefect_server: None,
) -> None:
    first = this_server()
    owners._server_id.cache_clear()
    assert this_server() == first
    real = PREFECT_API_URL.value()
    assert real is not None
    with temporary_settings({PREFECT_API_URL: real.replace("://", "://ada:secret@")}):
        assert this_server() == first


@pytest.mark.skipif(os.geteuid() != 0, reason="unshare needs root")
def test_pid_namespaces_are_machines_of_their_own() -> None:
    told = "from tasks.journal.owners import this_machine; print(this_machine())"
    look = [sys.executable, "-c", told]
    apart = ["unshare", "--pid", "--fork", "--mount-proc", *look]
    here, there = (
        subprocess.run(each, cwd=ROOT, capture_output=True, check=True, text=True).stdout.strip()
        for each in (look, apart)
    )
    assert here == this_machine()
    assert there != here
    assert process_start(os.getpid()) is not None
