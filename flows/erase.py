"""The erasure of customers from Nudgescribe's groups and from the lake."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks import Crm, CrmSource, DataLake, NudgescribeAccount
from flows.run.flow_run import this_run
from flows.run.outcomes import failed
from flows.run.parameters import tells_of_blocks
from tasks.erasure.groups import erase_from_groups
from tasks.erasure.listed import mark_erased, read_list
from tasks.erasure.open_work import ErasureBlocked, check_open_work, erase_from_staging
from tasks.erasure.report import ErasureIncomplete, ErasureResult, report_erasure
from tasks.erasure.runs import erase_from_runs
from tasks.erasure.tables import erase_from_tables
from tasks.journal.flow_runs import journaled
from tasks.journal.history import Counted, note_counts
from tasks.journal.refresh import Refresh
from tasks.ui.signals import announce


@tells_of_blocks
@flow(name="erase-customers", flow_run_name="erase-{lake.block_name}", persist_result=False)
def erase_customers(
    account: NudgescribeAccount,
    crm: Crm,
    lake: DataLake,
    column: str = "customer_id",
) -> ErasureResult | State[Any]:
    """Erase customers from all customer groups and from the whole lake, and keep exports from
    bringing them back.

    Ends in state ErasureBlocked if flow runs that are not over hold the customers, in state
    ErasureIncomplete if customer groups do not let them go. A retry continues with the same list.

    Args:
        account: The Nudgescribe account whose groups they are deleted from.
        crm: The list of the customers to erase, and of nobody else.
        lake: The data lake; its block needs the key for tombstones.
        column: Column of that list with the identifiers; no other one is read.
    """
    try:
        with journaled(lake, this_run(), resumable=True) as run:
            return _erase(account, crm, lake, column, run)
    except ErasureBlocked as error:
        return failed("ErasureBlocked", error)
    except ErasureIncomplete as error:
        return failed("ErasureIncomplete", error)


def _erase(
    account: NudgescribeAccount, crm: CrmSource, lake: DataLake, column: str, run: Refresh
) -> ErasureResult:
    to_erase = read_list(crm, column, lake, run)
    check_open_work(to_erase, lake, run)
    mark_erased(to_erase, lake, run)
    staged = erase_from_staging(to_erase, account, lake, run)
    in_groups = erase_from_groups(to_erase, account, lake, run)
    # Tables first: the segments of a run that is written again are copied.
    in_tables = erase_from_tables(to_erase, lake, run)
    in_runs = erase_from_runs(to_erase, lake, run)
    result = ErasureResult(
        customers=to_erase.customers.rows,
        in_groups=in_groups,
        in_runs=in_runs,
        in_tables=in_tables,
        staged=staged,
    )
    report_erasure(lake, result)
    if in_groups.refused:
        raise ErasureIncomplete(
            f"Nudgescribe refused to delete customers from {in_groups.refused:,} customer groups."
        )
    note_counts(lake, run, Counted(counts={"removed": in_groups.customers, "rows": in_runs.rows}))
    announce("customers.erased", "lake", lake.block_name, run.id, result.model_dump())
    return result
