"""The first steps of refresh, plan and synchronisation: extract and validate the list."""

from collections.abc import Generator
from contextlib import contextmanager, suppress

from blocks import CrmSource, DataLake, NudgescribeAccount
from flows.options import ListOptions
from flows.run.flow_run import this_refresh
from nudgescribe.errors import NudgeflowError
from tasks.customers.extract import extract_customers
from tasks.customers.mapping import find_fields
from tasks.customers.validate import Validated, validate_customers
from tasks.journal.flow_runs import end_journal, open_journal
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
    staged = extract_customers(crm, lake, refresh, mapping.needed)
    return validate_customers(mapping, staged, lake, refresh, options.strict, partition)


@contextmanager
def journaled(lake: DataLake) -> Generator[Refresh]:
    """Yield this flow run's identity with its journal, which ends with the block, and with it what
    the block has staged. The block's error is raised in any case.
    """
    refresh = open_journal(lake, this_refresh())
    try:
        yield refresh
    except BaseException as error:
        problem = error.problem if isinstance(error, NudgeflowError) else type(error).__name__
        with suppress(Exception):
            end_journal(lake, refresh, problem)
        raise
    end_journal(lake, refresh)
