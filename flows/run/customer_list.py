"""What flows do with the customer list: extract and validate it, send it to a group."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from blocks import CrmSource, DataLake, NudgescribeAccount
from flows.options import ListOptions
from flows.run.flow_run import check_reachable
from tasks import lineage
from tasks.customers.extract import extract_customers
from tasks.customers.holdout import Holdout
from tasks.customers.mapping import find_fields
from tasks.customers.sync import ListDiff, update_customers
from tasks.customers.upload import GroupRef, upload_customers
from tasks.customers.validate import Validated, validate_customers
from tasks.journal.refresh import Refresh
from tasks.ui import assets
from tasks.ui.artifacts import artifact_key


def extract_and_validate(
    account: NudgescribeAccount,
    workspace_id: str,
    crm: CrmSource,
    lake: DataLake,
    refresh: Refresh,
    options: ListOptions,
    partition: str,
    name: str,
    holdout: Holdout | None = None,
) -> Validated:
    """Stage the accepted rows of the CRM's list; the `partition` of the lake's quarantine lists the
    rejected ones, and a table in Prefect's UI counts them. The `name` is that of the campaign or
    the group.
    """
    check_reachable(crm)
    mapping = find_fields(account, workspace_id, options.fields)
    staged = extract_customers(crm, lake, refresh, mapping.needed, options.max_age)
    return validate_customers(
        mapping,
        staged,
        lake,
        refresh,
        partition,
        strict=options.strict,
        duplicates=options.duplicates,
        suppress=options.suppress,
        holdout=holdout,
        rejected_key=artifact_key("rejected", name, f"{workspace_id} {partition} {name}"),
    )


def fill_group(
    account: NudgescribeAccount,
    group: GroupRef,
    crm: CrmSource,
    validated: Validated,
    lake: DataLake,
    refresh: Refresh,
) -> None:
    """Send the list to a new group."""
    upload = upload_customers.with_options(**_lineage(account, group, crm))
    with _told(account, group, crm, validated):
        upload(account, group, validated.accepted, lake, refresh)


def update_group(
    account: NudgescribeAccount,
    group: GroupRef,
    crm: CrmSource,
    validated: Validated,
    lake: DataLake,
    refresh: Refresh,
) -> ListDiff:
    """Make the group equal to the list, by sending the differences."""
    update = update_customers.with_options(**_lineage(account, group, crm))
    with _told(account, group, crm, validated):
        return update(account, group, validated.accepted, validated.key, lake, refresh)


def _lineage(account: NudgescribeAccount, group: GroupRef, crm: CrmSource) -> dict[str, Any]:
    return {
        "assets": [assets.group(account, group.customer_group_id)],
        "asset_deps": [assets.crm(crm)],
    }


@contextmanager
def _told(
    account: NudgescribeAccount,
    group: GroupRef,
    crm: CrmSource,
    validated: Validated,
) -> Generator[None]:
    """Tell that the group holds the list from now on."""
    source = lineage.Dataset.of(assets.crm(crm))
    target = lineage.Dataset.of(assets.group(account, group.customer_group_id))
    with lineage.told("upload", source, target) as written:
        yield
        written.rows = validated.accepted.rows
