"""Options of flows. Never secrets: Prefect stores parameters in clear text.

Prefect's forms have no groups but order fields by `position`: titles name a field's group.
"""

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from blocks import Crm, SqlTable
from blocks.storage.handover import HandoverFormat
from blocks.urls import holds_secret
from nudgescribe.bases import FrozenInput, number_fields
from tasks.customers.duplicates import Choice
from tasks.customers.freshness import MaxAge
from tasks.customers.guardrails import Guardrails, ListGuardrails
from tasks.customers.holdout import Holdout
from tasks.customers.mapping import FieldSource
from tasks.group_names import check_template
from tasks.refresh.claim import Overlap

Review = Literal["suspend", "wait", "stop"]
GROUPS = ("Source", "Safety", "Review", "Advanced")
TUNING: dict[str, Any] = {"json_schema_extra": {"tuning": True}}
"""Marks a field that no form shows: programs and deployments can set it all the same."""


def _in(group: str, title: str) -> dict[str, Any]:
    """Return the title of a field in a group of the form."""
    return {"title": f"{group}: {title}"}


def _arrange(schema: dict[str, Any]) -> None:
    """Leave tuning out of a form, and order its fields by group."""
    fields: dict[str, dict[str, Any]] = schema["properties"]
    hidden = {f"^{name}$": fields.pop(name) for name in [*fields] if fields[name].pop("tuning", 0)}
    if hidden:
        schema["patternProperties"] = hidden  # what is not shown is still validated by Prefect
    schema["properties"] = dict(sorted(fields.items(), key=_group))
    number_fields(schema)


def _group(field: tuple[str, dict[str, Any]]) -> int:
    return GROUPS.index(str(field[1]["title"]).partition(": ")[0])


class FormOptions(FrozenInput):
    """Settings that a form shows by group."""

    model_config = ConfigDict(json_schema_extra=_arrange)


class FetchOptions(FormOptions):
    """Settings of the fetch of messages."""

    model_config = ConfigDict(hide_input_in_errors=True)

    export_minutes: float = Field(
        default=60,
        gt=0,
        description="Maximum wait for the export, in minutes.",
        **TUNING,
    )
    downloads: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Pages that a process downloads at the same time.",
        **TUNING,
    )
    task_runner: Literal["threads", "dask", "ray"] = Field(
        default="threads",
        description="Where pages are fetched and converted.",
        **_in("Advanced", "task runner"),
    )
    cluster: str | None = Field(
        default=None,
        description="Address of the Dask or Ray cluster, without a password; by default a local "
        "one.",
        **_in("Advanced", "cluster"),
    )

    hand_over: HandoverFormat | None = Field(
        default=None,
        description="Write the customers added, changed and removed since the previous run, with "
        "their messages, to the lake's handover folder, in this format.",
        **_in("Advanced", "hand-over file"),
    )
    copy_to: SqlTable | None = Field(
        default=None,
        description="Keep the newest run's messages in a table of a database, too: a saved SQL "
        "table block.",
        **_in("Advanced", "copy to a table"),
    )

    @field_validator("copy_to")
    @classmethod
    def _is_saved_table(cls, table: SqlTable | None) -> SqlTable | None:
        if table:
            table.to_reference()  # parameters are stored in clear, and the URL has a password
        return table

    @field_validator("cluster")
    @classmethod
    def _holds_no_secret(cls, cluster: str | None) -> str | None:
        if cluster and ("@" in cluster or holds_secret(cluster)):
            raise ValueError(
                "holds a user, a password or a token, and parameters are stored in clear: leave it "
                "out, and set it in the configuration of Dask or Ray on the workers"
            )
        return cluster


class ExportOptions(FetchOptions):
    """Settings of one export."""

    check_rows: bool = Field(
        default=True,
        description="Require a message for each customer of the current run's group; switch it off "
        "if the group has changed since.",
        **_in("Safety", "check the number of messages"),
    )
    rewrite: bool = Field(
        default=False,
        description="Fetch runs that are already in the lake again, and rewrite them.",
        **_in("Safety", "fetch again"),
    )
    members: bool = Field(
        default=True,
        description="Also write the members of each segment: the run's group is read back for it, "
        "1,000 customers per call. Switch it off for large groups if members are not needed.",
        **_in("Advanced", "segment members"),
    )


class ListOptions(FormOptions):
    """Settings of the customer list."""

    fields: dict[str, FieldSource] = Field(
        default_factory=dict[str, FieldSource],
        description="Field mapping: workspace field → source column. It names every field to send; "
        "by default the list's columns are the fields.",
        **_in("Source", "field mapping"),
    )
    strict: bool = Field(
        default=False,
        description="Refuse the whole list at its first rejected row.",
        **_in("Safety", "strict validation"),
    )
    duplicates: Choice = Field(
        default="refuse",
        description="If the list has a customer more than once: refuse the list, or take the "
        "customer's first or last row and reject the others.",
        **_in("Source", "duplicate customers"),
    )

    suppress: Crm | None = Field(
        default=None,
        description="Customers who must not be written to: a saved CRM block, of which only the "
        "customer identifier is read. They are left out of the group; a refresh checks again "
        "before it publishes.",
        **_in("Safety", "suppression list"),
    )

    @field_validator("suppress")
    @classmethod
    def _is_saved(cls, suppress: Crm | None) -> Crm | None:
        if suppress:
            suppress.to_reference()  # it is loaded again before the publication
        return suppress

    max_age: MaxAge | None = Field(
        default=None,
        description="Refuse an older list. Its time comes from the source or from a column.",
        **_in("Safety", "maximum age of the list"),
    )


class SyncOptions(ListOptions):
    """Settings of one synchronisation of a customer group."""

    guardrails: ListGuardrails = Field(
        default=ListGuardrails(),
        description="Safety limits; exceeding one stops the synchronisation.",
        **_in("Safety", "guardrails"),
    )


class RefreshOptions(FetchOptions, ListOptions):
    """Settings of one refresh; the defaults suit a scheduled one."""

    group: Literal["new", "reuse"] = Field(
        default="new",
        description="Create a new customer group, or update the existing one of this name by what "
        "differs.",
        **_in("Source", "customer group"),
    )
    group_name: str = Field(
        default="{campaign} {run:%Y-%m-%d %H:%M}",
        description="Name of the customer group: {campaign} is the campaign's name, {run} the time "
        "the flow run was planned for.",
        **_in("Source", "name of the customer group"),
    )
    holdout: Holdout | None = Field(
        default=None,
        description="Share of customers who get no message, for comparison: always the same ones, "
        "left out of the group and listed in the lake's holdouts.",
        **_in("Source", "holdout"),
    )
    guardrails: Guardrails = Field(
        default=Guardrails(),
        description="Safety limits; exceeding one stops the refresh.",
        **_in("Safety", "guardrails"),
    )
    if_unchanged: Literal["refresh", "skip"] = Field(
        default="refresh",
        description="If list and run are unchanged since the last refresh: refresh anyway; or "
        "skip, which uses no quota.",
        **_in("Safety", "unchanged list"),
    )
    plan_id: str | None = Field(
        default=None,
        description="Refresh only if list and campaign are still those of this plan.",
        **_in("Safety", "plan ID"),
    )
    overlap: Overlap = Field(
        default="join",
        description="If a refresh is already running: skip, join or fail. Join waits for it, or "
        "continues it if its flow run has ended half-way.",
        **_in("Safety", "refresh already running"),
    )
    review: Review = Field(
        default="wait",
        description="While awaiting review: suspend, which needs a deployment and holds no worker; "
        "wait; or stop, for publish-campaign to finish it later.",
        **_in("Review", "while awaiting review"),
    )
    review_minutes: float = Field(
        default=7 * 24 * 60,
        gt=0,
        description="Maximum wait for the review of new messages, in minutes.",
        **_in("Review", "maximum wait, in minutes"),
    )
    rerun_minutes: float = Field(
        default=240,
        gt=0,
        description="Maximum wait for the rerun, in minutes.",
        **TUNING,
    )

    @property
    def total_minutes(self) -> float:
        """Return the longest time that a refresh may take, in minutes."""
        waits = self.rerun_minutes + self.review_minutes + self.export_minutes
        return waits + (self.max_age.wait_minutes if self.max_age else 0)

    @field_validator("group_name")
    @classmethod
    def _is_template(cls, template: str) -> str:
        return check_template(template)
