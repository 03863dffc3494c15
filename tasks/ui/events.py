"""Prefect events at the end of flows, for other teams' automations."""

from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event


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
