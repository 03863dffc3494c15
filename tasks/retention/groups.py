"""Retention of the customer groups that refreshes have made at Nudgescribe."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from prefect.logging import get_run_logger

from blocks.storage.errors import LakeError
from blocks.storage.manifest import campaign_partition
from nudgescribe import contract, errors
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import ApiError, AuthError, ContractMismatch, NotFound, Retryable
from tasks.refresh.history import OpenRefreshes
from tasks.refresh.standing import Standing
from tasks.retention.rules import CHANGED, Candidate, cutoff

MARKER = re.compile(r"Nudgeflow refresh (\S+)")
UNCHANGED_FOR = timedelta(minutes=1)
IN_DOUBT = "A refresh whose journal cannot be read may need it."
RUNS_NEEDED = 2
"""Of each campaign: a rerun that fails puts it back on the run before."""


def group_candidates(
    client: NudgescribeClient, now: datetime, days: float, open_: OpenRefreshes
) -> Iterator[Candidate]:
    """Yield the old groups that a refresh has created, no campaign needs and nobody has changed."""
    limit = cutoff(now, days)
    for workspace in client.campaigns():
        if _may_need_any(workspace, open_):
            message = "The groups of workspace %s stay: a journal of its campaigns cannot be read"
            get_run_logger().warning(message, workspace.workspace_id)
            continue
        try:
            yield from _candidates(client, workspace, limit, open_)
        except ContractMismatch as error:
            # What cannot be read may need any group.
            get_run_logger().warning(
                "The groups of workspace %s stay: %s", workspace.workspace_id, error
            )


def _candidates(
    client: NudgescribeClient,
    workspace: contract.WorkspaceCampaigns,
    limit: datetime,
    open_: OpenRefreshes,
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
        if group.created_at and group.created_at < limit and _is_removable(group, open_)
    ]
    needed = _needed(client, workspace) if candidates else set[str]()
    return [candidate for candidate in candidates if candidate.target not in needed]


def remove_group(
    client: NudgescribeClient, candidate: Candidate, open_: OpenRefreshes
) -> str | None:
    """Delete a group; return why it is kept, be it the service's reason."""
    groups = client.list_groups(candidate.workspace_id)
    group = next((one for one in groups if one.customer_group_id == candidate.target), None)
    if group is None:
        return None
    if not _is_removable(group, open_):
        return CHANGED
    workspaces = client.campaigns()
    if any(candidate.target in record.texts for record in workspaces.malformed):
        return "A campaign that cannot be read may be on it."
    for workspace in workspaces:
        if workspace.workspace_id == candidate.workspace_id and _may_need_any(workspace, open_):
            return IN_DOUBT
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


def _is_removable(group: contract.CustomerGroup, open_: OpenRefreshes) -> bool:
    """Return whether a refresh that is not open made the group, and nobody has changed it since."""
    marker = MARKER.fullmatch(group.description or "")
    if not (marker and group.updated_at and group.created_at):
        return False
    unchanged = group.updated_at - group.created_at < UNCHANGED_FOR
    needed = (one.refresh.id for one in open_.values() if isinstance(one, Standing))
    return unchanged and marker[1] not in needed


def _may_need_any(workspace: contract.WorkspaceCampaigns, open_: OpenRefreshes) -> bool:
    """Return whether a refresh in the workspace, which may be open, has a journal that cannot be
    read.
    """
    ids = [campaign.campaign_id for campaign in workspace.campaigns]
    ids += [record.id for record in workspace.malformed]
    return any(isinstance(open_.get(campaign_partition(id_)), LakeError) for id_ in ids)


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
