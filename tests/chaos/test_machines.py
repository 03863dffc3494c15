"""Flow run, worker and Prefect server killed under a refresh that runs as people run it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from nudgescribe import contract
from nudgescribe.contract import Status
from sandbox import seed
from sandbox.settings import Settings
from tests.chaos.proof import done_once, nothing_half
from tests.chaos.rig import Story
from tests.chaos.stack import Stack, running
from tests.conftest import Company, Sandbox, serving
from tests.support.prefect_servers import PrefectServer


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
        seconds = round(monotonic() - began, 1)
        point = f"kill -9: {strike.__name__.replace('_', ' ')}"
        record_property("chaos", [point, "", what, outcome, seconds])
