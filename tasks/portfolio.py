"""Many refreshes at once, each a flow run of its own: begun, looked after, summed up."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry
from pydantic import BaseModel, ConfigDict

from nudgescribe.errors import NudgeflowError
from tasks.policies import NEVER_CACHED


class Refreshed(BaseModel):
    """What became of a campaign's refresh: the state of its flow run and what that says."""

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    flow_run: str
    state: str
    kind: str
    said: str

    @property
    def over(self) -> bool:
        """Whether it ended, or sleeps until people have approved."""
        return self.kind in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED")

    @property
    def good(self) -> bool:
        return self.kind in ("COMPLETED", "PAUSED")


class NoDeployment(NudgeflowError):
    advice = "Deploy it with `prefect deploy`, or name another one in the parameters."


@task(**NEVER_CACHED, task_run_name="start {campaign_id}")
def start_refresh(
    deployment: str, campaign_id: str, parameters: dict[str, Any], key: str
) -> Refreshed:
    """The campaign's flow run, made unless there is one of the same `key`. Raises NoDeployment."""
    with get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            raise NoDeployment(f"There is no deployment {deployment}.") from None
        run = client.create_flow_run_from_deployment(
            deployed.id,
            parameters={"campaign_id": campaign_id, **parameters},
            idempotency_key=key,
        )
    return Refreshed(
        campaign_id=campaign_id, flow_run=str(run.id), state="Scheduled", kind="SCHEDULED", said=""
    )


def look_at(refreshes: Sequence[Refreshed]) -> list[Refreshed]:
    """The same refreshes as they are now, by one call of Prefect's server."""
    ids = [UUID(each.flow_run) for each in refreshes]
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=ids))
        runs = {run.id: run.state for run in client.read_flow_runs(flow_run_filter=wanted)}
    seen: list[Refreshed] = []
    for each in refreshes:
        state = runs.get(UUID(each.flow_run))
        if state is None:
            gone = {"state": "Deleted", "kind": "CANCELLED", "said": "The flow run is gone."}
            seen.append(each.model_copy(update=gone))
            continue
        update = {"state": state.name, "kind": state.type.value, "said": state.message or ""}
        seen.append(each.model_copy(update=update))
    return seen


def begin_again(refreshed: Refreshed) -> Refreshed:
    """Has a worker take up a crashed flow run once more, as `prefect flow-run retry` does."""
    state = AwaitingRetry()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(refreshed.flow_run), state, force=True)
    return refreshed.model_copy(update={"state": state.name, "kind": state.type.value})


@task(**NEVER_CACHED)
def report_portfolio(refreshes: Sequence[Refreshed]) -> None:
    """The refreshes as a table in the UI."""
    shown = {"campaign_id", "state", "said", "flow_run"}
    good = sum(each.good for each in refreshes)
    create_table_artifact(
        [each.model_dump(include=shown) for each in refreshes],
        key="portfolio",
        description=f"{good} of {len(refreshes)} campaigns are well",
    )
