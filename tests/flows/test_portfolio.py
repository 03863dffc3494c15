"""Many refreshes looked after; what a worker would do to their flow runs is done here."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Failed, Running, Suspended

from flows import portfolio
from flows.portfolio import Member, portfolio_refresh
from tasks.portfolio import NoDeployment, look_at, start_refresh
from tests.deployed import Deployed, deployed, flow_run, state_of

__all__ = ["deployed"]

TESTS = "campaign-refresh/tests"
Work = Callable[[Callable[[str, FlowRun], State[Any] | None]], list[int]]


@pytest.fixture
def work(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> Work:
    """While the flow sleeps, brings its flow runs into the states that are given; returns how many
    there were to look after each time.
    """
    open_: dict[str, UUID] = {}
    counts: list[int] = []
    real = portfolio.start_refresh

    def start(deployment: str, campaign_id: str, *others: Any) -> Any:
        started = real(deployment, campaign_id, *others)
        open_[campaign_id] = UUID(started.flow_run)
        return started

    def working(becomes: Callable[[str, FlowRun], State[Any] | None]) -> list[int]:
        def sleep(seconds: float) -> None:
            counts.append(len(open_))
            for campaign, run in list(open_.items()):
                if state := becomes(campaign, flow_run(run)):
                    with get_client(sync_client=True) as client:
                        client.set_flow_run_state(run, state, force=True)
                    if not state.is_crashed():
                        del open_[campaign]

        monkeypatch.setattr(portfolio, "start_refresh", start)
        monkeypatch.setattr(portfolio, "sleep", sleep)
        return counts

    return working


def members(*campaigns: str) -> list[Member]:
    return [Member(campaign_id=each) for each in campaigns]


def test_one_that_fails_stops_no_other(work: Work) -> None:
    ends = {
        "good": Completed(),
        "bad": Failed(message="why"),
        "asleep": Suspended(),
        "last": Completed(name="Joined"),
    }
    counts = work(lambda campaign, _: ends[campaign])
    state = portfolio_refresh(
        members(*ends), account="a", at_once=2, deployment=TESTS, return_state=True
    )
    assert (state.type.value, state.name) == ("FAILED", "PartlyFailed")
    assert state.message is not None
    assert state.message.startswith("Of 4 campaigns failed: bad (Failed). The others are well.")
    assert counts == [2, 2]
    with get_client(sync_client=True) as client:
        (table,) = [one.data for one in client.read_artifacts() if one.key == "portfolio"]
    assert isinstance(table, str)
    assert '"said": "why"' in table


def test_one_that_crashes_is_begun_again_and_not_for_ever(work: Work) -> None:
    crashes: dict[str, int] = {"unlucky": 1, "hopeless": 9}

    def becomes(campaign: str, run: FlowRun) -> State[Any]:
        crashes[campaign] -= 1
        return Crashed() if crashes[campaign] >= 0 else Completed()

    work(becomes)
    state = portfolio_refresh(members(*crashes), deployment=TESTS, return_state=True)
    assert state.name == "PartlyFailed"
    assert state.message is not None
    assert state.message.startswith("Of 2 campaigns failed: hopeless (Crashed).")
    assert crashes["hopeless"] == 9 - 1 - portfolio.MOST_CRASHES


def test_each_has_its_own_blocks_and_is_there_once(work: Work) -> None:
    seen: dict[str, Any] = {}

    def becomes(campaign: str, run: FlowRun) -> State[Any]:
        seen[campaign] = run.parameters
        return Completed()

    work(becomes)
    listed = [Member(campaign_id="one", account="own", crm="file-crm/own"), *members("two", "two")]
    outcome = portfolio_refresh(listed, account="shared", deployment=TESTS)
    assert isinstance(outcome, list)
    assert [(each.campaign_id, each.state) for each in outcome] == [
        ("one", "Completed"),
        ("two", "Completed"),
    ]
    shared = {"lake": "main", "options": {"review": "suspend"}}
    assert seen == {
        "one": {"campaign_id": "one", "account": "own", "crm": "file-crm/own", **shared},
        "two": {"campaign_id": "two", "account": "shared", "crm": "sql-crm/main", **shared},
    }


def test_it_does_not_wait_for_ever(work: Work) -> None:
    work(lambda campaign, _: Running())
    state = portfolio_refresh(
        members("slow", "never"), at_once=1, hours=0, deployment=TESTS, return_state=True
    )
    assert state.message is not None
    assert "Of 2 campaigns failed: slow (Scheduled), never (NotStarted)" in state.message


def test_a_retry_looks_after_the_same_flow_runs(deployed: Deployed) -> None:
    first, again, other = (
        start_refresh.fn(TESTS, "c", {}, key) for key in ("of a run", "of a run", "of another")
    )
    assert first.flow_run == again.flow_run != other.flow_run
    assert state_of(UUID(first.flow_run)).name == "Scheduled"
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(first.flow_run))
    seen = look_at([first, other])
    assert [(each.state, each.good) for each in seen] == [("Deleted", False), ("Scheduled", False)]


def test_an_unknown_deployment_is_named(deployed: Deployed) -> None:
    with pytest.raises(NoDeployment, match="no deployment campaign-refresh/nowhere"):
        start_refresh.fn("campaign-refresh/nowhere", "c", {}, "key")
