"""The synchronisation of a customer group with the CRM, without a rerun."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks import Crm, DataLake, NudgescribeAccount
from blocks.storage.manifest import NO_CAMPAIGN
from flows.options import SyncOptions
from flows.run.customer_list import extract_and_validate, update_group
from flows.run.flow_run import check_reachable, this_run
from flows.run.outcomes import completed
from flows.run.parameters import tells_of_blocks
from tasks.customers.sync import ListDiff
from tasks.customers.upload import GroupRef, find_group, find_or_create_group
from tasks.group_names import check_group_name
from tasks.journal.flow_runs import journaled
from tasks.journal.history import Counted, note_counts
from tasks.journal.refresh import Refresh
from tasks.refresh.report import report_sync, sync_sentence
from tasks.ui.artifacts import link_report
from tasks.ui.signals import announce


@tells_of_blocks
@flow(name="sync-customers", flow_run_name="sync-{group_name}", persist_result=False)
def sync_customers(
    workspace_id: str,
    group_name: str,
    account: NudgescribeAccount,
    crm: Crm,
    lake: DataLake,
    options: SyncOptions = SyncOptions(),  # noqa: B008 - frozen
) -> ListDiff | State[Any]:
    """Make a customer group equal to the CRM's list, by sending the differences.

    Ends in state Skipped if a refresh that is not over reuses the group.

    Args:
        workspace_id: ID of the workspace that the group belongs to.
        group_name: Name of the group; created if there is none of this name.
        account: The Nudgescribe account; needs its profile key.
        crm: Where the customer list comes from.
        lake: The data lake, for staging and quarantine.
        options: Advanced settings.
    """
    check_group_name(group_name)
    check_reachable(lake)
    with journaled(lake, this_run(), resumable=False) as run:
        check_reachable(account)
        group = find_group(account, workspace_id, group_name, lake)
        if group and group.held_by:
            return _skipped(lake, run, group)
        validated = extract_and_validate(
            account, workspace_id, crm, lake, run, options, NO_CAMPAIGN, group_name
        )
        options.guardrails.check(validated.counts(group.size if group else None))
        group = find_group(account, workspace_id, group_name, lake)  # the list may have taken long
        if group and group.held_by:
            return _skipped(lake, run, group)
        group = group or find_or_create_group(account, workspace_id, group_name)
        changes = update_group(account, group, crm, validated, lake, run)
    report = report_sync(lake, group, validated, changes)
    counts = {**changes.model_dump(), "rejected": validated.rejected}
    announce("customers.synced", "group", group.customer_group_id, run.id, counts)
    link_report(report, sync_sentence(group, changes))
    return changes


def _skipped(lake: DataLake, run: Refresh, group: GroupRef) -> State[Any]:
    note_counts(lake, run, Counted(outcome="skipped"))
    return completed("Skipped", f"Group '{group.name}' is in use by refresh {group.held_by}.")
