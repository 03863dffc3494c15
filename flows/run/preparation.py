"""The first steps of refresh, plan and synchronisation: extract and validate the list."""

from blocks import CrmSource, DataLake, NudgescribeAccount
from flows.options import ListOptions
from tasks.customers.extract import extract_customers
from tasks.customers.mapping import find_fields
from tasks.customers.validate import Validated, validate_customers
from tasks.journal.refresh import Refresh


def extract_and_validate(
    account: NudgescribeAccount,
    workspace_id: str,
    crm: CrmSource,
    lake: DataLake,
    refresh: Refresh,
    options: ListOptions,
    partition: str,
) -> Validated:
    """Stage the accepted rows of the CRM's list; the `partition` of the lake's quarantine lists the
    rejected ones.
    """
    mapping = find_fields(account, workspace_id, options.fields)
    staged = extract_customers(crm, lake, refresh)
    return validate_customers(mapping, staged, lake, refresh, options.strict, partition)
