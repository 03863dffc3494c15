"""The work pool of the deployments."""

import json
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.workers.process import ProcessWorker

from deployments.upserts import Outcome, found
from nudgescribe.errors import NudgeflowError

POOL = "nudgeflow"
TEMPLATE = Path(__file__).parent / "kubernetes" / "base-job-template.json"

PoolType = Literal["process", "kubernetes"]


class PoolDiffers(NudgeflowError):
    advice = f"Set NUDGEFLOW_POOL_TYPE, or delete it: `prefect work-pool delete {POOL}`."


def check_pool(client: SyncPrefectClient, kind: PoolType | None) -> None:
    """Raises PoolDiffers if there is a work pool of another type."""
    pool = found(client.read_work_pool, POOL)
    if pool and kind and pool.type != kind:
        raise PoolDiffers(f"The work pool {POOL} is of type {pool.type}, not {kind}.")


def make_pool(client: SyncPrefectClient, kind: PoolType | None) -> Outcome:
    """Of processes, unless another `kind` is named. One on Kubernetes gets this release's template
    of its jobs; another one keeps what it has.
    """
    pool = found(client.read_work_pool, POOL)
    if pool is None:
        template = _template(kind or "process")
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type=kind or "process", base_job_template=template)
        )
        return "created"
    if kind != "kubernetes" or pool.base_job_template == _template(kind):
        return "unchanged"
    client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=_template(kind)))
    return "updated"


def _template(kind: PoolType) -> dict[str, Any]:
    if kind == "process":
        return ProcessWorker.get_default_base_job_template()
    return json.loads(TEMPLATE.read_text(encoding="utf-8"))
