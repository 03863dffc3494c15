"""Signals of a flow run to programs: labels for our own hooks and flows, events for automations."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import sleep
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.types import KeyValueLabels

from blocks.limits import without_retries
from nudgescribe.errors import cut

LAKE = "nudgeflow.lake"
ACCOUNT = "nudgeflow.account"
RUN_NUMBER = "nudgeflow.run_number"
JOB_UID = "nudgeflow.job_uid"
REPORT = "nudgeflow.report"
"""The address of the page that tells most of the flow run: its report, its review, its plan."""
REVIEW_UNTIL = "nudgeflow.review_until"
IN_PORTFOLIO = "nudgeflow.in_portfolio"
MOST_OF_NAME, MOST_OF_TAG = 60, 200
"""Characters of a campaign's or a workspace's name: lists of flow runs show names on one line."""
QUICK_TRIES, PAUSE_SECONDS = 10, 0.1
_CAMPAIGN, _WORKSPACE = "campaign: ", "workspace: "


def add_labels(labels: KeyValueLabels) -> None:
    """Add labels to the running flow run."""
    _quickly(partial(_update_labels, labels))


def name_flow_run(campaign: str, workspace: str, what: str = "") -> None:
    """Name the running flow run by its campaign and `what` it does, and tag it with campaign and
    workspace; it goes on without, should Prefect's server refuse it. Outside of a flow run there is
    nothing to name.
    """
    if not flow_run.id:
        return
    tags = [f"{_CAMPAIGN}{cut(campaign, MOST_OF_TAG)}"]
    if workspace:
        tags.append(f"{_WORKSPACE}{cut(workspace, MOST_OF_TAG)}")
    with suppress(httpx.HTTPError):
        _quickly(partial(_update_name, f"{cut(campaign, MOST_OF_NAME)}{what}", tags))


def is_named() -> bool:
    """Return whether the running flow run has been named by its campaign."""
    return any(tag.startswith(_CAMPAIGN) for tag in _tags())


def _quickly(update: Callable[[], None]) -> None:
    # A server on SQLite refuses it for the milliseconds in which it records a task run; Prefect's
    # own client then waits for two seconds and more.
    with without_retries():
        for _ in range(QUICK_TRIES):
            with suppress(httpx.HTTPError):
                return update()
            sleep(PAUSE_SECONDS)
    return update()


def _update_labels(labels: KeyValueLabels) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(flow_run.id), labels)
    if (context := FlowRunContext.get()) and context.flow_run:
        context.flow_run.labels.update(labels)


def _update_name(name: str, tags: list[str]) -> None:
    known = _tags()
    others = (tag for tag in known if not tag.startswith((_CAMPAIGN, _WORKSPACE)))
    tagged = sorted({*others, *tags})
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.id), name=name, tags=tagged)
    known[:] = tagged


def _tags() -> list[str]:
    context = FlowRunContext.get()
    return context.flow_run.tags if context and context.flow_run else []


def announce(event: str, kind: str, name: str, occurrence: str, payload: dict[str, Any]) -> None:
    """Emit `nudgeflow.EVENT` for the resource `nudgeflow.KIND.NAME`, related to the flow run.

    The event's id follows from the `occurrence`, so that a retry emits the same event. Payloads
    hold ids, counts and paths.
    """
    resource = f"nudgeflow.{kind}.{quote(name, '')}"
    emit_event(
        f"nudgeflow.{event}",
        {"prefect.resource.id": resource, "prefect.resource.name": name},
        payload=payload,
        id=uuid5(NAMESPACE_URL, f"nudgeflow:{event}/{resource}/{occurrence}"),
    )
