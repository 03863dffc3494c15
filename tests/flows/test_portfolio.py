"""Many refreshes looked after; what a worker would do to their flow runs is done here."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Suspended
from prefect.telemetry.run_telemetry import LABELS_TRACEPARENT_KEY

from blocks import CampaignPortfolio, Member, Portfolio
from blocks.portfolio import NoPortfolio
from flows import portfolio
from flows.portfolio import period_of, portfolio_refresh
from flows.run.flow_run import this_flow_run
from nudgescribe import rfc4180
from nudgescribe.errors import NotFound
from tasks.journal.refresh import Refresh
from tasks.portfolio import (
    NoDeployment,
    RefreshStatus,
    is_left_to,
    read_statuses,
    start_refresh,
)
from tasks.ui.signals import IN_PORTFOLIO
from tests.conftest import Company, Save, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import Deployed, deployed, flow_run, state_of

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


@pytest.fixture
def shared(company: Company, save: Save) -> dict[str, Any]:
    """Parameters; every time the flow runs is a period of its own."""
    return {
        **save(company, customers(1)).blocks,
        "deployment": TESTS,
        "period": "run",
        "run_on": "workers",
    }


def refresh(shared: dict[str, Any], *campaigns: str, **parameters: Any) -> State[Any]:
    return portfolio_refresh(
        campaigns=members(*campaigns), **{**shared, **parameters}, return_state=True
    )


def test_portfolio_refreshes_others_when_one_fails(work: Work, shared: dict[str, Any]) -> None:
    ends = {
        "good": Completed(),
        "bad": Failed(message="why"),
        "asleep": Suspended(),
        "last": Completed(name="Joined"),
    }
    counts = work(lambda campaign, _: ends[campaign])
    state = refresh(shared, *ends, at_once=2)
    assert (state.type.value, state.name) == ("FAILED", "PartlyFailed")
    assert state.message is not None
    rest = "The others: 1 finished, 1 awaiting review, 1 joined another"
    assert state.message.startswith(f"1 of 4 campaigns failed: bad (Failed). {rest}. Open the")
    assert counts == [2, 2]
    artifacts = all_artifacts()
    run = state.state_details.flow_run_id
    (page,) = [one for one in artifacts if (one.key, one.flow_run_id) == ("portfolio", run)]
    rows = [line.strip("| ").split(" | ") for line in str(page.data).splitlines() if "|" in line]
    assert rows[2][:2] == ["bad", "failed"]
    assert "runs/flow-run/" in rows[2][2]
    assert str(page.data).endswith("## Why\n\nbad: why\n")
    assert sorted(row[:2] for row in rows[3:]) == [
        ["asleep", "awaiting review"],
        ["good", "finished"],
        ["last", "joined another"],
    ]
    assert str(page.description).count("1 ") == 4


def test_portfolio_refreshes_each_campaign_with_its_options_and_retries_crashed_ones(
    work: Work, shared: dict[str, Any]
) -> None:
    crashes = {"one": 0, "unlucky": 1, "hopeless": 9}
    seen: dict[str, Any] = {}

    def becomes(campaign: str, run: FlowRun) -> State[Any]:
        crashes[campaign] -= 1
        seen[campaign] = run.parameters
        return Crashed() if crashes[campaign] >= 0 else Completed()

    work(becomes)
    own = {"account": "own", "crm": "file-crm/own", "options": {"strict": True}}
    one = Member.model_validate({"campaign_id": "one", **own})
    listed = [one, *members("unlucky", "unlucky", "hopeless")]
    state = portfolio_refresh(campaigns=listed, **shared, return_state=True)
    assert state.message is not None
    assert state.message.startswith("1 of 3 campaigns failed: hopeless (Crashed).")
    assert crashes["hopeless"] == 9 - 1 - portfolio.MOST_CRASHES
    references = {name: shared[name].to_reference() for name in ("account", "crm", "lake")}
    assert seen["one"] == {
        "campaign_id": "one",
        "account": {"$ref": {"block_document_slug": "nudgescribe-account/own"}},
        "crm": {"$ref": {"block_document_slug": "file-crm/own"}},
        "lake": references["lake"],
        "options": {"review": "suspend", "strict": True},
    }
    assert seen["unlucky"] == {
        "campaign_id": "unlucky",
        **references,
        "options": {"review": "suspend"},
    }


def test_portfolio_is_refused_when_options_are_invalid(work: Work, shared: dict[str, Any]) -> None:
    counts = work(lambda campaign, _: Completed())
    bad = Member(campaign_id="bad", options={"guardrails": {"max_shrink": "a secret"}})
    wanted = "options of campaign bad, at guardrails.max_shrink: Input should be a valid number"
    with pytest.raises(NoPortfolio, match=wanted) as error:
        portfolio_refresh(campaigns=[*members("good"), bad], **shared)
    assert "a secret" not in str(error.value)
    with pytest.raises(NoPortfolio, match="There is no campaign to refresh"):
        portfolio_refresh(**shared)
    assert counts == []


def test_portfolio_ends_when_hours_are_over(work: Work, shared: dict[str, Any]) -> None:
    work(lambda campaign, _: Running())
    state = refresh(shared, "slow", "never", at_once=1, hours=0)
    assert state.message is not None
    assert "2 of 2 campaigns failed: slow (Scheduled), never (NotStarted)" in state.message


def test_portfolio_takes_published_campaigns_of_workspaces(
    work: Work, company: Company, shared: dict[str, Any], tmp_path: Path
) -> None:
    work(lambda campaign, _: Completed())
    mine = company.seeded
    listed = Portfolio(campaigns=members("listed"), workspaces=[mine.workspace_id])
    done = portfolio_refresh(portfolio=CampaignPortfolio(portfolio=listed), **shared)
    assert isinstance(done, list)
    assert sorted((each.campaign_id, each.state) for each in done) == sorted(
        (campaign, "Completed") for campaign in ("listed", mine.campaign_id)
    )
    (file := tmp_path / "portfolio.yaml").write_text(
        f"campaigns: [campaign_id: {mine.campaign_id}]"
    )
    done = portfolio_refresh(portfolio_file=str(file), workspaces=[mine.workspace_id], **shared)
    assert isinstance(done, list)
    assert [each.campaign_id for each in done] == [mine.campaign_id]
    with company.client() as client:
        group = client.create_group(mine.workspace_id, "The second").customer_group_id
        client.upload_customers(mine.workspace_id, group, rfc4180.write(customers(20)))
        client.initiate_rerun(mine.campaign_id, group)
        company.settle(client)
    done = portfolio_refresh(campaigns=members("listed"), workspaces=[mine.workspace_id], **shared)
    assert isinstance(done, list)
    (unpublished,) = [each for each in done if each.campaign_id == mine.campaign_id]
    assert (unpublished.outcome, unpublished.flow_run) == ("skipped", "")
    assert unpublished.message == "The campaign is Ready for review."
    with pytest.raises(NotFound, match="has no workspace nowhere"):
        portfolio_refresh(workspaces=["nowhere"], **shared)


def test_period_follows_planned_time() -> None:
    planned = Refresh(id="r", started=datetime(2026, 3, 31, 23, 30, tzinfo=UTC))

    def named(period: Any, timezone: str) -> str:
        return period_of(planned, period, timezone)

    assert named("run", "UTC") == "r"
    assert (named("day", "UTC"), named("day", "Europe/London")) == ("2026-03-31", "2026-04-01")
    assert (named("week", "UTC"), named("month", "Europe/London")) == ("2026-W14", "2026-04")
    for unknown in ("Nowhere", "../etc"):
        with pytest.raises(NoPortfolio, match=f"no time zone {unknown}"):
            named("day", unknown)


def begun(
    key: str, over: bool = False, starter: str | None = None, **parameters: Any
) -> RefreshStatus:
    return start_refresh.fn(TESTS, "c", parameters, key, lambda flow_run: over, starter)


def test_campaign_is_refreshed_once_per_period(deployed: Deployed) -> None:
    first, again, other = begun("a"), begun("a", lake="x"), begun("b")
    assert first.flow_run == again.flow_run != other.flow_run
    assert state_of(UUID(first.flow_run)).name == "Scheduled"
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(first.flow_run))
    seen = read_statuses([first, other])
    assert [(each.state, each.succeeded) for each in seen] == [
        ("Deleted", False),
        ("Scheduled", False),
    ]


def test_failed_refresh_is_retried_in_same_period(deployed: Deployed) -> None:
    first = begun("of a day")
    become(first, Completed())
    assert begun("of a day") == first.model_copy(
        update={"state": "Completed", "state_type": "COMPLETED"}
    )
    become(first, Failed())
    again = begun("of a day")
    assert (again.flow_run, again.state) == (first.flow_run, "AwaitingRetry")
    # What is set otherwise now cannot be told to a flow run that is there: another one follows it.
    become(first, Failed())
    other = begun("of a day", lake="another")
    assert other.flow_run != first.flow_run
    assert begun("of a day", lake="another").flow_run == other.flow_run
    become(other, Completed())
    assert begun("of a day", lake="a third").flow_run == other.flow_run


@pytest.mark.parametrize("state", [Failed(), Cancelled()], ids=["failed", "cancelled"])
def test_flow_run_that_cannot_go_on_is_followed_by_another_in_same_period(
    deployed: Deployed, state: State[Any]
) -> None:
    first = begun("of a month")
    become(first, state)
    second = begun("of a month", over=True)
    assert (second.flow_run != first.flow_run, second.state) == (True, "Scheduled")
    assert begun("of a month", over=True).flow_run == second.flow_run


def test_cancelled_flow_run_goes_on_with_its_refresh(deployed: Deployed) -> None:
    first = begun("of a week")
    become(first, Cancelled())
    again = begun("of a week")
    assert (again.flow_run, again.state) == (first.flow_run, "AwaitingRetry")


def test_flow_run_whose_starter_was_killed_is_left_to_the_next(deployed: Deployed) -> None:
    starter, other = begun("starter"), begun("other starter")
    become(starter, Running())
    first = begun("of a quarter", starter=starter.flow_run)
    assert first.state == "Pending"
    assert begun("of a quarter", starter=other.flow_run) == first
    become(starter, Crashed())
    again = begun("of a quarter", starter=other.flow_run)
    assert (again.flow_run, is_left_to(again, other.flow_run)) == (first.flow_run, True)
    become(other, Crashed())
    assert begun("of a quarter").state == "AwaitingRetry"


def become(refreshed: RefreshStatus, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(refreshed.flow_run), state, force=True)


def test_refresh_continues_the_trace_of_its_portfolio(deployed: Deployed) -> None:
    trace = f"00-{1:032x}-{1:016x}-01"

    @flow
    def starting() -> RefreshStatus:
        this_flow_run().labels[LABELS_TRACEPARENT_KEY] = trace
        return start_refresh(TESTS, "c", {}, "traced", lambda flow_run: False)

    labels = flow_run(UUID(starting().flow_run)).labels
    assert (labels[LABELS_TRACEPARENT_KEY], labels[IN_PORTFOLIO]) == (trace, True)


def test_unknown_deployment_is_named(deployed: Deployed) -> None:
    with pytest.raises(NoDeployment, match="no deployment campaign-refresh/nowhere"):
        start_refresh.fn("campaign-refresh/nowhere", "c", {}, "key", lambda flow_run: False)
