"""Automations on a Prefect server as `deployments/compose.yaml` runs it."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import time
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.events.related import tags_as_related_resources
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.flow_runs import resume_flow_run
from prefect.settings import PREFECT_API_AUTH_STRING
from prefect.states import Cancelling, Completed, Crashed, Failed, Pending, Running, Suspended

from deployments import automations, bootstrap
from flows.review import resume_reviewed
from tasks.ui.signals import REPORT
from tests.deployments.watched import watched, work
from tests.support import prefect_servers
from tests.support.clock import SECONDS, until
from tests.support.deployed import Deployed, deploy, flow_run, state_of
from tests.support.http_server import FakeService, Reply, Request, serving
from tests.support.prefect_servers import ComposedServer

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]

SECRET = "a customer's value"
BEAT = 30
"""Seconds, the fewest that Prefect allows."""
SILENCE = timedelta(seconds=45)
PERIOD = timedelta(seconds=12)
THEN = {"dead": "work", "alive": "work", "asleep": "sleep", "ended": "end"}
BEGUN = {"dead": "Running", "alive": "Running", "asleep": "Suspended", "ended": "Completed"}


class Mailbox(FakeService):
    """Receives notifications on this machine."""

    def __init__(self) -> None:
        super().__init__()
        self.letters: list[tuple[float, str, str]] = []

    def answer(self, request: Request) -> Reply:
        letter = json.loads(request.body)
        self.letters.append((time(), letter["title"], letter["message"]))
        return Reply()

    def about(self, name: str) -> list[tuple[float, str, str]]:
        return [each for each in self.letters if name in each[2]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposedServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_UI_URL", "http://prefect.example")
        with prefect_servers.composed(tmp_path_factory.mktemp("prefect")) as server:
            yield server


@pytest.fixture(scope="module")
def mailbox(server: ComposedServer) -> Iterator[Mailbox]:
    """Receive what the automations of `bootstrap` send, after seconds instead of days."""
    with serving(Mailbox()) as mailbox:
        address = f"{mailbox.url.replace('http', 'json')}/hook"
        list(bootstrap.bootstrap({"NUDGEFLOW_NOTIFY_URL": address}))
        with get_client(sync_client=True) as client:
            block = client.read_block_document_by_name("nudgeflow", "slack-webhook")
            for automation in automations.load(block.id, refresh_days=1):
                automations.upsert_automation(client, shortened(automation))
        yield mailbox


def shortened(automation: AutomationCore) -> AutomationCore:
    """Wait for seconds where the automation waits for minutes or days."""
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    if trigger.posture == Posture.Proactive:
        within = SILENCE if automation.name == "Nudgeflow: no heartbeat" else PERIOD
        trigger = trigger.model_copy(update={"within": within})
    return automation.model_copy(update={"trigger": trigger})


@dataclass(frozen=True)
class Processes:
    """Flow runs in processes of their own, by what becomes of them, and their last words."""

    runs: dict[str, UUID]
    running: dict[str, "subprocess.Popen[bytes]"]

    def states(self) -> dict[str, str | None]:
        return {name: state_of(run).name for name, run in self.runs.items()}


@pytest.fixture(scope="module", autouse=True)
def processes(server: ComposedServer, mailbox: Mailbox) -> Iterator[Processes]:
    """They have begun, one has been killed; other tests run while its silence lasts."""
    refresh = refreshes("watched")
    runs = {name: refresh.plan({"then": then}) for name, then in THEN.items()}
    beats = {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT),
        "PREFECT_API_URL": server.url,
        "PREFECT_API_AUTH_STRING": str(PREFECT_API_AUTH_STRING.value()),
    }
    processes = Processes(runs, {name: work(run, **beats) for name, run in runs.items()})
    try:
        until(lambda: processes.states() == BEGUN)
        processes.running["dead"].kill()
        for name in ("asleep", "ended"):
            processes.running[name].wait(SECONDS)
            # As if it had been on its way for long.
            beat(runs[name])
        yield processes
    finally:
        for process in processes.running.values():
            process.kill()
            process.wait()


def planned(of: Deployed, name: str, *tags: str) -> UUID:
    return of.plan({"then": "end"}, name=name, tags=tags)


def refreshes(name: str) -> Deployed:
    return deploy(watched, name, tags=["nudgescribe"])


def moves(run_id: UUID, *states: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        for state in states:
            client.set_flow_run_state(run_id, state, force=True)


def test_failed_runs_of_tagged_deployments_are_notified_without_messages(mailbox: Mailbox) -> None:
    ours, theirs = (deploy(watched, name, tags=[name]) for name in ("nudgescribe", "theirs"))
    moves(planned(theirs, "another-projects"), Running(), Failed(message=SECRET))
    moves(planned(ours, "a-good-one"), Running(), Completed(name="Joined", message=SECRET))
    runs = {
        "overdue": Failed(name="ReviewOverdue", message=SECRET),
        "partly": Failed(name="PartlyFailed", message=SECRET),
        "killed": Crashed(message=SECRET),
    }
    ids = {name: planned(ours, f"the-{name}-one") for name in runs}
    report = "http://prefect.example/artifacts/artifact/1"
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(ids["partly"], {REPORT: report})
    for name, state in runs.items():
        moves(ids[name], Running(), state)
    until(lambda: all(mailbox.about(f"the-{name}-one") for name in runs))
    for name, state in runs.items():
        ((_, title, text),) = mailbox.about(f"the-{name}-one")
        assert title == f"campaign-refresh: {state.name}"
        said, link, *linked = text.split("\n")
        assert said == f"campaign-refresh, flow run the-{name}-one, ended as {state.name}."
        assert re.fullmatch(f"http://.*/runs/flow-run/{ids[name]}", link)
        assert linked == ([f"Report: {report}"] if name == "partly" else [])
    assert not mailbox.about("another-projects")
    assert not mailbox.about("a-good-one")
    assert SECRET not in str(mailbox.letters)


def test_failing_resume_reviewed_is_notified_once(mailbox: Mailbox) -> None:
    often = deploy(resume_reviewed, "often", tags=["nudgescribe"])
    for _ in range(3):
        moves(often.plan({}), Running(), Failed())
    last = planned(refreshes("last"), "the-last")
    moves(last, Running(), Failed())
    until(lambda: mailbox.about("the-last"))
    assert len(mailbox.about("resume-reviewed, ")) == 1


def test_review_that_waits_is_notified_unless_resumed(mailbox: Mailbox) -> None:
    refresh = refreshes("reviewed")
    asleep, resumed, again = (
        planned(refresh, f"{name}-one") for name in ("asleep", "resumed", "again")
    )
    for run_id in (resumed, again, asleep):
        moves(run_id, Running(), Suspended(timeout_seconds=3600))
    for run_id in (resumed, again):
        resume_flow_run(run_id)
    moves(again, Running(), Suspended(timeout_seconds=3600))
    # One more sign of life after the news that it sleeps.
    beat(asleep)
    until(lambda: mailbox.about("asleep-one") and mailbox.about("again-one"))
    ((_, title, text),) = mailbox.about("asleep-one")
    assert title == "Awaiting review"
    assert str(asleep) in text
    assert not mailbox.about("resumed-one")


def test_run_that_neither_starts_nor_ends_is_notified(mailbox: Mailbox) -> None:
    refresh = refreshes("lost")
    begun, lost, cancelled = (
        planned(refresh, f"{name}-one") for name in ("begun", "lost", "cancelled")
    )
    moves(begun, Pending(name="Submitting"), Pending(), Running())
    moves(lost, Pending(name="InfrastructurePending"))
    moves(cancelled, Pending(), Running(), Cancelling())
    until(lambda: mailbox.about("lost-one") and mailbox.about("cancelled-one"))
    ((_, title, text),) = mailbox.about("lost-one")
    assert title == "A flow run hangs"
    assert str(lost) in text
    assert not mailbox.about("begun-one")


def test_schedule_without_success_is_notified(mailbox: Mailbox) -> None:
    failing = planned(refreshes("failing-monthly"), "f", "auto-scheduled")
    moves(failing, Pending(), Running(), Failed())
    moves(planned(refreshes("by-hand"), "b"), Pending(), Running(), Completed())
    good = planned(refreshes("good-monthly"), "w", "auto-scheduled")
    moves(good, Pending(), Running())
    begun = time()
    until(lambda: time() > begun + PERIOD.total_seconds() / 2)
    moves(good, Completed())
    at = time()
    until(lambda: mailbox.about("failing-monthly") and mailbox.about("good-monthly"))
    ((told, title, text),) = mailbox.about("good-monthly")
    assert str(good) in text
    assert title == "No refresh succeeds"
    # Half a period later than if only its beginning counted.
    assert told > at + PERIOD.total_seconds() - 1
    assert not mailbox.about("by-hand")


def beat(run_id: UUID) -> datetime:
    """What a flow run's process sends, now."""
    run = flow_run(run_id)
    event = emit_event(
        event="prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        related=tags_as_related_resources(set(run.tags)),
    )
    assert event is not None
    return event.occurred


def refusals(run_id: UUID) -> list[str]:
    """Why the server did not let an automation change a flow run."""
    wanted = {"event": {"name": ["prefect.automation.action.failed"]}}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json={"filter": wanted})
    events = answer.json()["events"]
    target = f"prefect.flow-run.{run_id}"
    return [
        each["payload"]["reason"]
        for each in events
        if target in [related["prefect.resource.id"] for related in each["related"]]
    ]


def test_flow_run_without_process_is_crashed_and_no_other(
    mailbox: Mailbox, processes: Processes
) -> None:
    """Last, as it takes the longest."""
    runs = processes.runs
    until(lambda: state_of(runs["dead"]).name == "Crashed")
    until(lambda: refusals(runs["asleep"]) and refusals(runs["ended"]))
    assert refusals(runs["asleep"]) == [
        "Failed to set state: Cannot pause flows that are not currently running."
    ]
    assert processes.states() == {**BEGUN, "dead": "Crashed"}
    assert processes.running["alive"].poll() is None
    until(lambda: mailbox.about(str(runs["dead"])))
    assert "continues it" in str(state_of(runs["dead"]).message)
