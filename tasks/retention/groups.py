"""Retention of the customer groups that refreshes have made at Nudgescribe."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from prefect.logging import get_run_logger

from nudgescribe import contract, errors
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import ApiError, AuthError, ContractMismatch, NotFound, Retryable
from tasks.retention.rules import CHANGED, Candidate, cutoff

MARKER = re.compile(r"Nudgeflow refresh (\S+)")
UNCHANGED_FOR = timedelta(minutes=1)
RUNS_NEEDED = 2
"""Of each campaign: a rerun that fails puts it back on the run before."""


def group_candidates(
    client: NudgescribeClient, now: datetime, days: float, open_refreshes: Collection[str]
) -> Iterator[Candidate]:
    """Yield the old groups that a refresh has created, no campaign needs and nobody has changed."""
    limit = cutoff(now, days)
    for workspace in client.campaigns():
        try:
            yield from _candidates(client, workspace, limit, open_refreshes)
        except ContractMismatch as error:
            # What cannot be read may need any group.
            get_run_logger().warning(
                "The groups of workspace %s stay: %s", workspace.workspace_id, error
            )


def _candidates(
    client: NudgescribeClient,
    workspace: contract.WorkspaceCampaigns,
    limit: datetime,
    open_refreshes: Collection[str],
) -> list[Candidate]:
    candidates = [
        Candidate(
            kind="customer group",
            target=group.customer_group_id,
            since=group.created_at,
            name=group.name,
            customers=group.customer_count or 0,
            workspace_id=group.workspace_id,
        )
        for group in client.list_groups(workspace.workspace_id)
        if group.created_at and group.created_at < limit and _is_removable(group, open_refreshes)
    ]
    needed = _needed(client, workspace) if candidates else set[str]()
    return [candidate for candidate in candidates if candidate.target not in needed]


def remove_group(
    client: NudgescribeClient, candidate: Candidate, open_refreshes: Collection[str]
) -> str | None:
    """Delete a group; return why it is kept, be it the service's reason."""
    groups = client.list_groups(candidate.workspace_id)
    group = next((one for one in groups if one.customer_group_id == candidate.target), None)
    if group is None:
        return None
    if not _is_removable(group, open_refreshes):
        return CHANGED
    workspaces = client.campaigns()
    if any(candidate.target in record.texts for record in workspaces.malformed):
        return "A campaign that cannot be read may be on it."
    for workspace in workspaces:
        for campaign in workspace.campaigns:
            if campaign.customer_group_id == candidate.target:
                return f"Campaign {campaign.campaign_id} is on it."
    try:
        client.delete_group(candidate.target)
    except NotFound:
        return None
    except (AuthError, Retryable):
        raise
    except ApiError as error:
        return error.problem
    return None


def _is_removable(group: contract.CustomerGroup, open_refreshes: Collection[str]) -> bool:
    """Return whether a refresh that is not open made the group, and nobody has changed it since."""
    marker = MARKER.fullmatch(group.description or "")
    if not (marker and group.updated_at and group.created_at):
        return False
    unchanged = group.updated_at - group.created_at < UNCHANGED_FOR
    return unchanged and marker[1] not in open_refreshes


def _needed(client: NudgescribeClient, workspace: contract.WorkspaceCampaigns) -> set[str | None]:
    """Return the groups of each campaign's last runs, and those that several runs are on.

    Raises ContractMismatch if a campaign or a run does not fit the contract.
    """
    for record in workspace.malformed:
        raise errors.malformed(f"Campaign {record.id}", record)
    needed: set[str | None] = set()
    used = Counter[str | None]()
    for campaign in workspace.campaigns:
        history = client.rerun_history(campaign.campaign_id)
        history.sort(key=lambda run: run.run_number, reverse=True)
        alive = [run.customer_group_id for run in history if run.status != Status.FAILED]
        needed |= {campaign.customer_group_id, *alive[:RUNS_NEEDED]}
        used.update(run.customer_group_id for run in history)
    return needed | {group for group, runs in used.items() if runs > 1}
