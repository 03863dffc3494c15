"""What a refresh did, for people: a markdown artifact, and the same as a small result."""

import re

from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from tasks.changes import Changes
from tasks.groups import GroupRef
from tasks.policies import NEVER_CACHED
from tasks.validate import Validated


class RefreshResult(BaseModel):
    """Counts of one refresh; `seconds` per step, `path` the run's folder in the lake."""

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    campaign: str
    run_number: int
    customer_group_id: str
    group: str
    extracted: int
    accepted: int
    quarantined: int
    quarantine: str | None
    matched: int
    new: int
    orphaned: int
    customers_in_new: int
    files: int
    rows: int
    bytes: int
    path: str
    seconds: dict[str, float]


def artifact_key(name: str, campaign_id: str) -> str:
    """Prefect's keys hold lower-case letters, digits and dashes only."""
    return f"{name}-{re.sub('[^a-z0-9]+', '-', campaign_id.lower())}"


@task(**NEVER_CACHED)
def report_refresh(result: RefreshResult) -> None:
    """The refresh as a page in the UI."""
    create_markdown_artifact(
        _page(result),
        key=artifact_key("refresh", result.campaign_id),
        description=f"{result.campaign}, run {result.run_number}",
    )


@task(**NEVER_CACHED)
def report_sync(group: GroupRef, validated: Validated, changes: Changes) -> None:
    """The synchronisation as a page in the UI."""
    refused = f" (see `{validated.quarantine}`)" if validated.quarantine else ""
    create_markdown_artifact(
        f"""# Customer group *{group.name}*

| customers | |
|---|---:|
| extracted from the CRM | {validated.extracted:,} |
| quarantined{refused} | {validated.rejected:,} |
| added | {changes.added:,} |
| changed | {changes.changed:,} |
| deleted, no longer in the list | {changes.gone:,} |
| left as they were | {changes.same:,} |
""",
        key=artifact_key("sync", group.customer_group_id),
        description=f"{group.name}: {validated.accepted.rows:,} customers",
    )


def _page(result: RefreshResult) -> str:
    refused = f" (see `{result.quarantine}`)" if result.quarantine else ""
    steps = "\n".join(f"| {name} | {seconds:.1f} |" for name, seconds in result.seconds.items())
    return f"""# {result.campaign}: run {result.run_number}

| customers | |
|---|---:|
| extracted from the CRM | {result.extracted:,} |
| quarantined{refused} | {result.quarantined:,} |
| uploaded to group *{result.group}* | {result.accepted:,} |
| messages in the lake | {result.rows:,} |

| segments | |
|---|---:|
| matched, message kept | {result.matched:,} |
| new, message generated ({result.customers_in_new:,} customers) | {result.new:,} |
| orphaned, message archived | {result.orphaned:,} |

{result.files:,} files, {result.bytes:,} bytes in `{result.path}`.
Every customer of the list is in the lake exactly once.

| step | seconds |
|---|---:|
{steps}
"""
