"""What can be set for one refresh. Never secrets: Prefect stores parameters in clear."""

from string import Formatter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

PLACES = {"campaign", "run"}


class Fetching(BaseModel):
    """How messages are fetched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    export_minutes: float = Field(default=60, gt=0, description="Longest wait for the export.")
    downloads: int = Field(
        default=16, ge=1, le=64, description="Pages downloaded at once by a process."
    )
    task_runner: Literal["threads", "dask", "ray"] = Field(
        default="threads", description="Where pages are fetched and converted."
    )
    cluster: str | None = Field(
        default=None, description="Address of the Dask or Ray cluster; a local one by default."
    )


class ExportOptions(Fetching):
    """Settings of one export."""

    check_rows: bool = Field(
        default=True,
        description="Whether the current run must have a message for each customer of its group; "
        "switch it off if the group has changed since.",
    )


class RefreshOptions(Fetching):
    """Settings of one refresh; the defaults suit a scheduled one."""

    group_name: str = Field(
        default="{campaign} {run:%Y-%m-%d %H:%M}",
        description="Name of the customer group: {campaign} is the campaign's name, {run} the time "
        "the flow run was planned for.",
    )
    min_rows: int = Field(default=1, ge=1, description="Fewest good rows to go on with.")
    max_rejected_share: float = Field(
        default=0.05, ge=0, le=1, description="Largest share of rejected rows to go on with."
    )
    rerun_minutes: float = Field(default=240, gt=0, description="Longest wait for the rerun.")
    review_minutes: float = Field(
        default=3 * 24 * 60, gt=0, description="Longest wait for people to approve new messages."
    )

    @field_validator("group_name")
    @classmethod
    def _only_known_places(cls, template: str) -> str:
        places = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        if places - PLACES:
            raise ValueError("only {campaign} and {run} can stand in a group's name")
        return template
