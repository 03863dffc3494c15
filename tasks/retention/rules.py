"""What is old: how old it must be to go, and one thing that is to go."""

from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal[
    "staging", "draft", "upload", "leftover", "quarantine", "plan", "lake run", "customer group"
]
"""In the order they go. A leftover is a file of messages that no newest manifest names."""

OPEN = "A refresh of its campaign is open."
SINCE = "It was written to since."


class Ages(BaseModel):
    """How old things must be to go; what has no age stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    staging_days: float = Field(
        default=8,
        ge=1,
        description="What killed flow runs left, and replaced files of runs, goes after so many "
        "days: longer than the longest refresh with its review.",
    )
    quarantine_days: float | None = Field(
        default=None, ge=1, description="Quarantined rows go after so many days; kept by default."
    )
    plans_days: float | None = Field(
        default=None, ge=1, description="Plans go after so many days; kept by default."
    )
    runs_kept: int | None = Field(
        default=None,
        ge=1,
        description="Of each campaign the newest runs in the lake, so many, stay; the others go. "
        "If runs_days is set, too, a run goes only if both say so.",
    )
    runs_days: float | None = Field(
        default=None,
        ge=1,
        description="Runs in the lake go after so many days, but never a campaign's newest one. "
        "If runs_kept is set, too, a run goes only if both say so.",
    )
    groups_days: float | None = Field(
        default=None,
        ge=1,
        description="Customer groups that refreshes made go from the service after so many days, "
        "but never those of a campaign's last two runs; kept by default. Longer than the longest "
        "refresh with its review.",
    )


class Old(BaseModel):
    """One thing that is to go: `what` is its path in the lake, or the group's id; `detail` what
    else is needed to find it.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    what: str
    since: datetime
    name: str = ""
    bytes: int = 0
    customers: int = 0
    detail: str = ""


def before(now: datetime, days: float) -> datetime:
    return now - timedelta(days=days)
