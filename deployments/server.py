"""What Prefect's server has of ours: block types, blocks, limits, the work pool.

Each is made if it is not there, and changed if it is not as it should be.
"""

import json
from collections.abc import Callable
from inspect import isabstract
from pathlib import Path
from typing import Any, Literal, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

import blocks
from nudgescribe.errors import NudgeflowError

T = TypeVar("T")

Outcome = Literal["created", "updated", "unchanged"]


def found(read: Callable[[str], T], name: str) -> T | None:
    """What a method of Prefect's client reads by name, None if there is no such thing."""
    try:
        return read(name)
    except ObjectNotFound:
        return None


CALLS, DOWNLOADS = "nudgescribe-calls", "nudgescribe-downloads"
MOST_CALLS, MOST_DOWNLOADS = 8, 16


def set_limits(calls: int | None = None, downloads: int | None = None) -> dict[str, Outcome]:
    """Makes the limits, or gives them these numbers, also while slots of them are in use.

    Without a number a limit stays as it is. Returns what became of each.
    """
    with get_client(sync_client=True) as client:
        return {
            CALLS: _set(client, CALLS, calls, MOST_CALLS),
            DOWNLOADS: _set(client, DOWNLOADS, downloads, MOST_DOWNLOADS),
        }


def _set(client: SyncPrefectClient, name: str, wanted: int | None, default: int) -> Outcome:
    limit = found(client.read_global_concurrency_limit_by_name, name)
    if limit and wanted in (None, limit.limit):
        return "unchanged"
    client.upsert_global_concurrency_limit_by_name(name, wanted or default)
    return "updated" if limit else "created"


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


def block_types() -> list[type[Block]]:
    """All that a person can fill in."""
    mine = [getattr(blocks, name) for name in blocks.__all__]
    return [each for each in mine if Block.is_block_class(each) and not isabstract(each)]


def register(client: SyncPrefectClient, kind: type[Block]) -> Outcome:
    """Makes a block's type known, with the fields it has now."""
    slug = kind.get_block_type_slug()
    there = found(client.read_block_type_by_slug, slug)
    before = there and client.get_most_recent_block_schema_for_block_type(there.id)
    kind.register_type_and_schema()
    if there is None:
        return "created"
    after = client.get_most_recent_block_schema_for_block_type(there.id)
    return "unchanged" if before == after else "updated"


def saved(client: SyncPrefectClient, slug: str, name: str) -> BlockDocument | None:
    """What is saved, secrets and all; None if there is no such block."""
    return found(lambda name: client.read_block_document_by_name(name, slug), name)


def save(client: SyncPrefectClient, block: Block, name: str) -> Outcome:
    """Makes the saved block of this name hold just this."""
    there = saved(client, block.get_block_type_slug(), name)
    data = block.model_dump(
        mode="json", context={"include_secrets": True}, exclude={"block_type_slug"}
    )
    if there and there.data == data:
        return "unchanged"
    block.save(name, overwrite=True)
    return "updated" if there else "created"
