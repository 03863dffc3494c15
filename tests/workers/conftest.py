"""Process workers of a real Prefect server, which run deployments in processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME

from flows.refresh import campaign_refresh
from flows.review import resume_reviewed
from tests.support.deployed import Deployed, deploy, state_of
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
POOL = "tests"


@dataclass
class Workers:
    """Workers with a folder for temporary files."""

    temporary: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_HOME": str(PREFECT_HOME.value()),
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "TMPDIR": str(self.temporary),
        }
        if signed_in := PREFECT_API_AUTH_STRING.value():
            environment["PREFECT_API_AUTH_STRING"] = signed_in
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, *options]
        self.running.append(subprocess.Popen(command, env=environment))
        return self.running[-1]

    def kill(self) -> None:
        for worker in self.running:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        self.running.clear()


@pytest.fixture
def workers(prefect_server: None, tmp_path: Path) -> Iterator[Workers]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    workers = Workers(temporary)
    yield workers
    workers.kill()


@pytest.fixture
def pool(prefect_server: None) -> str:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
    return POOL


def on_pool(flow: Flow[..., Any], entrypoint: str) -> Deployed:
    here = {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
    options = {"work_pool_name": POOL, "entrypoint": entrypoint, "pull_steps": [here]}
    return deploy(flow, "workers", **options)


@pytest.fixture
def refreshes(pool: str) -> Deployed:
    return on_pool(campaign_refresh, "flows/refresh.py:campaign_refresh")


@pytest.fixture
def reviews(pool: str) -> Deployed:
    return on_pool(resume_reviewed, "flows/review.py:resume_reviewed")


def becomes(run: UUID, *names: str) -> State[Any]:
    """The state of a flow run as soon as it has one of these names."""
    until(lambda: state_of(run).name in names or state_of(run).is_final())
    state = state_of(run)
    assert state.name in names, state.message
    return state
