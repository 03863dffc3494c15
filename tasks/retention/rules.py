"""Rules of retention: minimum ages, and the candidates for removal."""

from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from nudgescribe.bases import Frozen, FrozenInput

Kind = Literal[
    "staging",
    "draft",
    "upload",
    "leftover",
    "quarantine",
    "plan",
    "journal",
    "history",
    "lake run",
    "customer group",
]
"""In the order of removal. A leftover is a file of messages that no newest manifest names, or a
holdout of a run that is not in the lake.
"""

OPEN = "A refresh of its campaign is open."
CHANGED = "It has changed since it was listed."


class Ages(FrozenInput):
    """Ages from which things are removed; what has no age stays."""

    staging_days: float = Field(
        default=8,
        ge=1,
        title="Advanced: days to keep staging",
        description="Keep staging folders, unfinished uploads and replaced files of runs for this "
        "many days: more than the longest refresh with its review takes.",
    )
    quarantine_days: float | None = Field(
        default=None,
        ge=1,
        title="Safety: days to keep rejected rows",
        description="Keep rejected rows for this many days; for ever by default.",
    )
    plans_days: float | None = Field(
        default=None,
        ge=1,
        title="Advanced: days to keep plans",
        description="Keep plans for this many days; for ever by default.",
    )
    journals_days: float | None = Field(
        default=None,
        ge=1,
        title="Advanced: days to keep journals",
        description="Keep the journals of refreshes and other flow runs for this many days, and "
        "each campaign's newest one for ever; all of them by default.",
    )
    history_days: float | None = Field(
        default=None,
        ge=1,
        title="Safety: days to keep history",
        description="Keep the history of flow runs and of the customers they changed for this many "
        "days; for ever by default.",
    )
    runs_kept: int | None = Field(
        default=None,
        ge=1,
        title="Safety: newest runs to keep",
        description="Keep this many newest runs of each campaign in the lake. If runs_days is set, "
        "too, a run is removed only if both allow it.",
    )
    runs_days: float | None = Field(
        default=None,
        ge=1,
        title="Safety: days to keep runs",
        description="Keep runs in the lake for this many days, and each campaign's newest run for "
        "ever. If runs_kept is set, too, a run is removed only if both allow it.",
    )
    groups_days: float | None = Field(
        default=None,
        ge=1,
        title="Safety: days to keep customer groups",
        description="Keep customer groups that refreshes made for this many days: more than the "
        "longest refresh with its review takes. Those of a campaign's last two runs stay; all of "
        "them by default.",
    )


class Candidate(Frozen):
    """Something to remove: `target` is its path in the lake, or the id of the customer group; an
    open refresh's staging has the `partition` of its campaign.
    """

    kind: Kind
    target: str
    since: datetime
    name: str = ""
    bytes: int = 0
    customers: int = 0
    partition: str = ""
    upload_id: str = ""
    workspace_id: str = ""


def cutoff(now: datetime, days: float) -> datetime:
    """Return the time before which things are old."""
    return now - timedelta(days=days)
