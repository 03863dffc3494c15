"""Create or update what Prefect's server keeps for the project: limits, the work pool, block types
and blocks.
"""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from inspect import isabstract
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)
from prefect.workers.process import ProcessWorker

import blocks
from nudgescribe.errors import NudgeflowError
from nudgescribe.reach import find_obstacle

T = TypeVar("T")

Outcome = Literal["created", "updated", "unchanged"]

CALLS, DOWNLOADS = "nudgescribe-calls", "nudgescribe-downloads"
DEFAULT_SLOTS = {CALLS: 8, DOWNLOADS: 16}

POOL = "nudgeflow"
TEMPLATE = Path(__file__).parent / "kubernetes" / "base-job-template.json"

ANSWER_SECONDS = 8.0

PoolType = Literal["process", "kubernetes"]


class PoolDiffers(NudgeflowError):
    """The work pool exists, and is of another type."""

    advice = f"Set NUDGEFLOW_POOL_TYPE, or delete it: `prefect work-pool delete {POOL}`."


class NoAnswer(NudgeflowError):
    """No Prefect server answers at the address."""

    advice = (
        "Nothing was changed. Start one with `prefect server start`, or correct PREFECT_API_URL."
    )


@contextmanager
def open_client() -> Generator[SyncPrefectClient]:
    """Open a client that waits for answers no longer than 8 seconds, and asks once."""
    settings = {"timeout": ANSWER_SECONDS}
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings=settings) as client,
    ):
        yield client


def check_answer(client: SyncPrefectClient) -> str:
    """Return the version of the server. Raises NoAnswer.

    Prefect's client connects several times, so whether anybody answers is looked at before; which
    certificates are trusted is for it to say.
    """
    address = get_current_settings().api.url
    if address and (obstacle := find_obstacle(address, trusted=False)):
        raise NoAnswer(f"No Prefect server answers at {address}: {obstacle}.")
    try:
        return client.api_version()
    except httpx.HTTPStatusError as error:
        what = f"status {error.response.status_code}"
        if not str(client.api_url).rstrip("/").endswith("/api"):
            what += "; its address usually ends with /api"
    except httpx.UnsupportedProtocol:
        what = "the address must begin with http:// or https://, without blanks"
    except Exception as error:
        what = type(error).__name__
    raise NoAnswer(f"No Prefect server answers at {client.api_url}: {what}.")


def upsert(saved: T | None, wanted: T, write: Callable[[], object]) -> Outcome:
    """Call `write` if what the server has `saved` is missing or differs from `wanted`."""
    if saved == wanted:
        return "unchanged"
    write()
    return "created" if saved is None else "updated"


def upsert_limit(client: SyncPrefectClient, name: str, slots: int | None = None) -> Outcome:
    """Create a limit, or set its number of `slots`, also while some are in use.

    Without `slots` a new limit gets its default, and one that exists stays as it is.
    """
    limit = find(client.read_global_concurrency_limit_by_name, name)
    if limit and slots is None:
        return "unchanged"
    slots = slots or DEFAULT_SLOTS[name]
    write = partial(client.upsert_global_concurrency_limit_by_name, name, slots)
    return upsert(limit and limit.limit, slots, write)


def check_pool(client: SyncPrefectClient, kind: PoolType | None) -> None:
    """Raise PoolDiffers if the work pool is of another type than `kind`."""
    pool = find(client.read_work_pool, POOL)
    if pool and kind and pool.type != kind:
        raise PoolDiffers(f"The work pool {POOL} is of type {pool.type}, not {kind}.")


def upsert_pool(client: SyncPrefectClient, kind: PoolType | None) -> Outcome:
    """Create the work pool, of processes by default, or update its job template on Kubernetes.

    Each release has its own template for Kubernetes; a pool of processes keeps what it has.
    """
    pool = find(client.read_work_pool, POOL)
    if pool is None:
        kind = kind or "process"
        wanted = WorkPoolCreate(name=POOL, type=kind, base_job_template=_template(kind))
        return upsert(None, wanted, partial(client.create_work_pool, wanted))
    if kind != "kubernetes":
        return "unchanged"
    template = _template(kind)
    update = WorkPoolUpdate(base_job_template=template)
    return upsert(pool.base_job_template, template, partial(client.update_work_pool, POOL, update))


def _template(kind: PoolType) -> dict[str, Any]:
    if kind == "process":
        return ProcessWorker.get_default_base_job_template()
    return json.loads(TEMPLATE.read_text(encoding="utf-8"))


def block_types() -> list[type[Block]]:
    """Return the block classes that a person can fill in."""
    exported = [getattr(blocks, name) for name in blocks.__all__]
    return [each for each in exported if Block.is_block_class(each) and not isabstract(each)]


def upsert_block_type(client: SyncPrefectClient, kind: type[Block]) -> Outcome:
    """Register a block's type, with the fields it has now."""
    there = find(client.read_block_type_by_slug, kind.get_block_type_slug())
    before = there and client.get_most_recent_block_schema_for_block_type(there.id)
    kind.register_type_and_schema()
    if there is None:
        return "created"
    after = client.get_most_recent_block_schema_for_block_type(there.id)
    return "unchanged" if before == after else "updated"


def upsert_block(client: SyncPrefectClient, block: Block, name: str) -> Outcome:
    """Save a block under `name`, unless the saved one holds the same, secrets included."""
    saved = find_block(client, block.get_block_type_slug(), name)
    wanted = block.model_dump(
        mode="json", context={"include_secrets": True}, exclude={"block_type_slug"}
    )
    return upsert(saved and saved.data, wanted, partial(block.save, name, overwrite=True))


def find_block(client: SyncPrefectClient, slug: str, name: str) -> BlockDocument | None:
    """Return a saved block with its secrets, None if there is none."""
    return find(lambda name: client.read_block_document_by_name(name, slug), name)


def find(read: Callable[[str], T], name: str) -> T | None:
    """Return what a method of Prefect's client reads by name, None if there is none."""
    try:
        return read(name)
    except ObjectNotFound:
        return None
