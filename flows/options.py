"""What can be set for one refresh. Never secrets: Prefect stores parameters in clear."""

from string import Formatter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.customers.guardrails import Guardrails, ListGuardrails
from tasks.customers.mapping import FieldSource
from tasks.refresh.claim import Overlap

Review = Literal["suspend", "wait", "stop"]
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


class Listing(BaseModel):
    """How the customer list is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: dict[str, FieldSource] = Field(
        default_factory=dict[str, FieldSource],
        description="Where the workspace's fields come from, all that are to be sent; by default "
        "the list's columns are the fields.",
    )
    strict: bool = Field(default=False, description="Refuse the whole list at its first bad row.")


class SyncOptions(Listing):
    """Settings of one synchronisation of a customer group."""

    guardrails: ListGuardrails = Field(
        default=ListGuardrails(), description="What the list must keep to."
    )


class RefreshOptions(Fetching, Listing):
    """Settings of one refresh; the defaults suit a scheduled one."""

    guardrails: Guardrails = Field(default=Guardrails(), description="What the list must keep to.")
    plan_id: str | None = Field(
        default=None, description="Refresh only if list and campaign are those of this plan."
    )
    group: Literal["new", "reuse"] = Field(
        default="new",
        description="A new customer group, or the one of this name, of which only what differs is "
        "sent.",
    )
    group_name: str = Field(
        default="{campaign} {run:%Y-%m-%d %H:%M}",
        description="Name of the customer group: {campaign} is the campaign's name, {run} the time "
        "the flow run was planned for.",
    )
    overlap: Overlap = Field(
        default="join",
        description="If another refresh of the campaign is open: skip, that is end at once; join, "
        "that is wait for it, or continue it if its flow run has ended half-way; or fail.",
    )
    review: Review = Field(
        default="wait",
        description="While people review new messages: suspend, which needs a deployment and holds "
        "no worker; wait; or stop, for publish-campaign to finish it later.",
    )
    rerun_minutes: float = Field(default=240, gt=0, description="Longest wait for the rerun.")
    review_minutes: float = Field(
        default=7 * 24 * 60, gt=0, description="Longest wait for people to approve new messages."
    )

    @property
    def longest(self) -> float:
        """Minutes that a refresh may take."""
        return self.rerun_minutes + self.review_minutes + self.export_minutes

    @field_validator("group_name")
    @classmethod
    def _only_known_places(cls, template: str) -> str:
        places = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        if places - PLACES:
            raise ValueError("only {campaign} and {run} can stand in a group's name")
        return template
