"""Many campaigns refreshed, each by a flow run of its own."""

from collections import Counter, deque
from time import monotonic, sleep
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field

from flows.identity import this_refresh
from flows.options import RefreshOptions
from flows.outcomes import failed
from nudgescribe.errors import NudgeflowError
from tasks.portfolio import Refreshed, begin_again, look_at, report_portfolio, start_refresh

SECONDS_BETWEEN_LOOKS = 3.0
MOST_CRASHES = 3
"""Of a refresh: an overburdened worker loses flow runs, which then go on where they stopped."""


class Member(BaseModel):
    """A campaign of the portfolio; where it says nothing, the portfolio's own parameters count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign_id: str = Field(description="The campaign.")
    account: str | None = Field(default=None, description="Name of its account block.")
    crm: str | None = Field(default=None, description="Type and name of its CRM block.")


class PartlyFailed(NudgeflowError):
    advice = "The others are well. Look at their flow runs, and retry those."


@flow(name="portfolio-refresh")
def portfolio_refresh(
    campaigns: list[Member],
    account: str = "main",
    crm: str = "sql-crm/main",
    lake: str = "main",
    options: RefreshOptions = RefreshOptions(review="suspend"),  # noqa: B008 - frozen
    at_once: int = 20,
    hours: float = 24,
    deployment: str = "campaign-refresh/portfolio",
) -> list[Refreshed] | State[Any]:
    """Refreshes many campaigns, some at once; one that fails does not stop the others.

    Ends when each has ended or waits for its review, in state PartlyFailed if some went wrong. A
    retry looks after the same flow runs.

    Args:
        campaigns: The campaigns.
        account: Name of the Nudgescribe account block.
        crm: Type and name of the CRM block.
        lake: Name of the data lake block.
        options: Those of each refresh.
        at_once: How many refreshes run at the same time.
        hours: Longest wait for all of them.
        deployment: The deployment of campaign-refresh that runs them.
    """
    me = this_refresh()
    shared = {"lake": lake, "options": options.model_dump(mode="json", exclude_unset=True)}
    waiting = deque({each.campaign_id: each for each in campaigns}.values())
    running: list[Refreshed] = []
    over: list[Refreshed] = []
    crashes: Counter[str] = Counter()
    end = monotonic() + hours * 3600
    while waiting or running:
        while waiting and len(running) < at_once:
            each = waiting.popleft()
            own = {"account": each.account or account, "crm": each.crm or crm}
            key = f"{me.id} {each.campaign_id}"
            running.append(start_refresh(deployment, each.campaign_id, {**shared, **own}, key))
        seen, running = look_at(running), []
        for each in seen:
            if each.kind == "CRASHED" and crashes[each.campaign_id] < MOST_CRASHES:
                crashes[each.campaign_id] += 1
                get_run_logger().warning("Campaign %s crashed, begun again", each.campaign_id)
                running.append(begin_again(each))
            elif each.over:
                get_run_logger().info("Campaign %s: %s", each.campaign_id, each.state)
                over.append(each)
            else:
                running.append(each)
        if monotonic() >= end:
            over += [*running, *map(_not_started, waiting)]
            break
        if running:
            sleep(SECONDS_BETWEEN_LOOKS)
    report_portfolio(over)
    bad = [each for each in over if not each.good]
    if bad:
        names = ", ".join(f"{each.campaign_id} ({each.state})" for each in bad)
        return failed("PartlyFailed", PartlyFailed(f"Of {len(over)} campaigns failed: {names}."))
    return over


def _not_started(member: Member) -> Refreshed:
    """A campaign whose turn never came."""
    said = "The time was up before its turn."
    return Refreshed(
        campaign_id=member.campaign_id, flow_run="", state="NotStarted", kind="", said=said
    )
