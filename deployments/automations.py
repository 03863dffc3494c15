"""Create or update the automations of Prefect's server, which automations.yaml defines."""

from datetime import timedelta
from functools import partial
from pathlib import Path
from string import Template
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore

from deployments.server import Outcome, upsert

FILE = Path(__file__).parent / "automations.yaml"

FORMER_NAMES = {"Nudgeflow: a refresh is awaiting review": "Nudgeflow: a review waits"}
"""What automations were called once, by their present names."""


def load(notification_block: UUID | None, refresh_days: int) -> list[AutomationCore]:
    """Return the automations of automations.yaml.

    Those that notify people use the block with the id `notification_block`; without one they are
    left out. `refresh_days` is how long a schedule may bring no success before they do.
    """
    text = Template(FILE.read_text(encoding="utf-8")).substitute(
        notification_block=notification_block,
        refresh_days=refresh_days,
        refresh_seconds=int(timedelta(days=refresh_days).total_seconds()),
    )
    groups: dict[str, list[Any]] = yaml.safe_load(text)
    wanted = groups["crash"] + groups["wait"] + (groups["notify"] if notification_block else [])
    return [AutomationCore.model_validate(each) for each in wanted]


def upsert_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Outcome:
    """Create or update the automation of this name or its former one; one that a person has paused
    stays paused.

    An automation that is updated starts its clocks anew.
    """
    names = filter(None, (wanted.name, FORMER_NAMES.get(wanted.name)))
    there = [each for name in names for each in client.read_automations_by_name(name)]
    if not there:
        return upsert(None, wanted, partial(client.create_automation, wanted))
    for again in there[1:]:  # of a version before and one after
        client.delete_automation(again.id)
    saved = AutomationCore.model_validate(there[0].model_dump())
    wanted = wanted.model_copy(update={"enabled": saved.enabled})
    return upsert(saved, wanted, partial(client.update_automation, there[0].id, wanted))
