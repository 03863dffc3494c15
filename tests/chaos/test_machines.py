"""Flow run, worker and Prefect server killed under a refresh that runs as people run it: deployed,
and started by a worker.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from flows.refresh import campaign_refresh
from nudgescribe import contract
from nudgescribe.contract import Status
from sandbox import seed
from sandbox.settings import Settings
from tests.chaos.proof import done_once, nothing_half
from tests.chaos.rig import Story
from tests.conftest import Company, Sandbox, serving
from tests.support import deployed
from tests.support.clock import until
from tests.support.deployed import Workers, on_pool, process_of, until_it_ends
from tests.support.prefect_servers import PrefectServer


@dataclass
class Stack:
    """A company's refresh as a deployment, and a worker that has started it."""

    story: Story
    server: PrefectServer
    workers: Workers

    def __post_init__(self) -> None:
        self._deployment = on_pool(campaign_refresh, self.story.name)
        self.workers.start()
        self.refresh()

    def refresh(self) -> None:
        """The next run of the deployment."""
        parameters = {"campaign_id": self.story.campaign_id, **self.story.saved.references}
        self._newest = self._deployment.plan(parameters)

    def retry(self) -> None:
        deployed.retry(self._newest)

    def approve(self) -> None:
        self.until_campaign_is(Status.READY_FOR_REVIEW)
        self.story.company.sandbox.approve(self.story.campaign_id)

    def until_campaign_is(self, status: Status) -> None:
        until(lambda: len(runs := self.story.company.history()) > 1 and runs[0].status == status)

    def until_state_is(self, name: str) -> None:
        until(lambda: deployed.state_of(self._newest).name == name)

    def kill_process(self) -> None:
        """`kill -9` of the flow run."""
        process = process_of(self.story.lake, self.story.campaign_id)
        os.kill(process, signal.SIGKILL)
        until_it_ends(process)


@contextmanager
def running(story: Story, server: PrefectServer) -> Iterator[Stack]:
    """A refresh that has begun."""
    workers = Workers(story.folder)
    try:
        yield Stack(story, server, workers)
    finally:
        workers.kill()


@pytest.fixture(scope="session")
def slow_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Its reruns take two seconds, its reviewers are the tests."""
    data = tmp_path_factory.mktemp("slow-sandbox")
    with serving(Settings(data=data, rows_per_file=100, phase_seconds=0.5)) as service:
        yield service


def flow_run_in_review(stack: Stack) -> str:
    stack.until_campaign_is(Status.READY_FOR_REVIEW)
    stack.kill_process()
    stack.until_state_is("Crashed")
    stack.retry()
    stack.approve()
    stack.until_state_is("Completed")
    return "reported by the worker, retried"


def worker_and_flow_run_in_rerun(stack: Stack) -> str:
    stack.until_campaign_is(Status.PROCESSING)
    stack.workers.kill()
    stack.kill_process()
    nothing_half(stack.story)
    stack.workers.start()
    stack.refresh()
    stack.approve()
    stack.until_state_is("Completed")
    return "reported by nobody, continued by the next run"


def worker_while_pages_are_fetched(stack: Stack) -> str:
    stack.story.company.sandbox.fault("/exports/", delay=2)
    stack.approve()
    stack.until_campaign_is(Status.PUBLISHED)
    stack.workers.kill()
    # Prefect ends a flow run that can no longer print its log.
    stack.until_state_is("Crashed")
    nothing_half(stack.story)
    stack.workers.start()
    stack.retry()
    stack.until_state_is("Completed")
    return "crashed with its worker, retried"


def server_in_review(stack: Stack) -> str:
    stack.until_campaign_is(Status.READY_FOR_REVIEW)
    stack.server.kill()
    stack.server.start()
    stack.approve()
    stack.until_state_is("Completed")
    return "the flow run went on"


def everything_at_publish(stack: Stack) -> str:
    stack.story.company.sandbox.fault(contract.PUBLISH, delay=1)
    stack.approve()
    stack.until_campaign_is(Status.PUBLISHED)
    stack.workers.kill()
    stack.kill_process()
    stack.server.kill()
    nothing_half(stack.story)
    stack.server.start()
    stack.workers.start()
    stack.refresh()
    stack.until_state_is("Completed")
    return "reported by nobody, continued by the next run"


@pytest.mark.chaos
@pytest.mark.parametrize(
    "strike",
    [
        flow_run_in_review,
        worker_and_flow_run_in_rerun,
        worker_while_pages_are_fetched,
        server_in_review,
        everything_at_publish,
    ],
)
def test_deployed_refresh_happens_once_whatever_is_killed(
    strike: Callable[[Stack], str],
    slow_sandbox: Sandbox,
    prefect: PrefectServer,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    began = monotonic()
    seeded = seed.seed(slow_sandbox.context, 200)
    story = Story(Company(slow_sandbox, seeded), tmp_path / "story")
    what, outcome = "", "FAILED"
    try:
        with running(story, prefect) as stack:
            what = strike(stack)
            done_once(story)
        outcome = "once"
    finally:
        slow_sandbox.no_faults()
        seconds = round(monotonic() - began, 1)
        point = f"kill -9: {strike.__name__.replace('_', ' ')}"
        record_property("chaos", [point, "", what, outcome, seconds])
