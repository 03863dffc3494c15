"""Old customer groups of the service that refreshes made for themselves."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from nudgescribe import contract
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import ApiError, AuthError, NotFound, Retryable
from tasks.retention.rules import Old, before

MARK = re.compile(r"Nudgeflow refresh (\S+)")
AS_MADE = timedelta(minutes=1)
RUNS_NEEDED = 2
"""Of each campaign: a rerun that fails leads back to the run before it."""


def old_groups(
    client: NudgescribeClient, now: datetime, days: float, open_refreshes: Collection[str]
) -> Iterator[Old]:
    """The groups that a refresh made as new ones, that no campaign needs and nobody has changed."""
    limit = before(now, days)
    for workspace in client.campaigns():
        groups = [
            group
            for group in client.list_groups(workspace.workspace_id)
            if group.created_at < limit and _is_ours(group, open_refreshes)
        ]
        needed = _needed(client, workspace) if groups else set[str]()
        for group in groups:
            if group.customer_group_id not in needed:
                yield Old(
                    kind="customer group",
                    what=group.customer_group_id,
                    since=group.created_at,
                    name=group.name,
                    customers=group.customer_count,
                    detail=group.workspace_id,
                )


def remove_group(
    client: NudgescribeClient, old: Old, open_refreshes: Collection[str]
) -> str | None:
    """Deletes a group; returns why it is kept, which the service may say, too."""
    groups = client.list_groups(old.detail)
    group = next((each for each in groups if each.customer_group_id == old.what), None)
    if group is None:
        return None
    if not _is_ours(group, open_refreshes):
        return "It was changed since."
    for workspace in client.campaigns():
        for campaign in workspace.campaigns:
            if campaign.customer_group_id == old.what:
                return f"Campaign {campaign.campaign_id} is on it."
    try:
        client.delete_group(old.what)
    except NotFound:
        return None
    except (AuthError, Retryable):
        raise
    except ApiError as error:
        return error.problem
    return None


def _is_ours(group: contract.CustomerGroup, open_refreshes: Collection[str]) -> bool:
    """Whether a refresh made it that has ended. One that is reused was marked later on."""
    mark = MARK.fullmatch(group.description or "")
    untouched = group.updated_at - group.created_at < AS_MADE
    return mark is not None and untouched and mark[1] not in open_refreshes


def _needed(client: NudgescribeClient, workspace: contract.WorkspaceCampaigns) -> set[str | None]:
    """The groups of each campaign's last runs, and those that more than one run is on."""
    needed: set[str | None] = set()
    used = Counter[str | None]()
    for campaign in workspace.campaigns:
        history = client.rerun_history(campaign.campaign_id)
        history.sort(key=lambda run: run.run_number, reverse=True)
        whole = [run.customer_group_id for run in history if run.status != Status.FAILED]
        needed |= {campaign.customer_group_id, *whole[:RUNS_NEEDED]}
        used.update(run.customer_group_id for run in history)
    return needed | {group for group, runs in used.items() if runs > 1}
