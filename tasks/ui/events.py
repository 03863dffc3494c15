"""What other teams chain their work on: an event of Prefect's at the end of each flow."""

from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event


def announce(what: str, kind: str, name: str, once: str, payload: dict[str, Any]) -> None:
    """Emits `nudgeflow.WHAT` for the resource `nudgeflow.KIND.NAME`, in the flow run's own name.

    The event's id comes from what happened `once`: a retry's event is the same one. Payloads hold
    ids, counts and paths.
    """
    resource = f"nudgeflow.{kind}.{quote(name, '')}"
    emit_event(
        f"nudgeflow.{what}",
        {"prefect.resource.id": resource, "prefect.resource.name": name},
        payload=payload,
        id=uuid5(NAMESPACE_URL, f"nudgeflow:{what}/{resource}/{once}"),
    )
