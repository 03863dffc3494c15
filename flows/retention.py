"""Retention: old and unneeded things are removed from the lake and from Nudgescribe."""

from prefect import flow
from pydantic import Field

from blocks import DataLake, NudgescribeAccount
from flows.options import FormOptions
from flows.run.flow_run import this_run
from flows.run.parameters import tells_of_blocks
from tasks.journal.flow_runs import journaled
from tasks.retention.look import look_at_runs
from tasks.retention.rules import Ages
from tasks.retention.sweep import RetentionResult, list_candidates, remove_candidates
from tasks.ui.signals import announce


class RetentionOptions(Ages, FormOptions):
    """Settings of the retention."""

    dry_run: bool = Field(
        default=True,
        title="Safety: dry run",
        json_schema_extra={"position": -1},  # before the ages
        description="Only show what would be removed, as a table; switch it off to remove it.",
    )


@tells_of_blocks
@flow(name="lake-retention", flow_run_name="retention-{lake.block_name}", persist_result=False)
def lake_retention(
    lake: DataLake,
    account: NudgescribeAccount,
    options: RetentionOptions = RetentionOptions(),  # noqa: B008 - frozen
) -> RetentionResult:
    """List what is old in the lake and, with options.groups_days, among customer groups; then
    remove what is listed.

    Never removes a campaign's newest run in the lake, the groups of its last two runs, or anything
    that an open refresh needs. A retry continues with the same list.
    Raises RunsDamaged if files of runs are missing or damaged.

    Args:
        lake: The data lake.
        account: The Nudgescribe account that the refreshes of the lake use.
        options: Retention periods, and whether old data is removed.
    """
    with journaled(lake, this_run(), resumable=True) as run:
        listed = list_candidates(lake, account, options, run)
        if options.dry_run:
            result = RetentionResult(dry_run=True, removed=listed.amounts)
        else:
            result = remove_candidates(lake, account, listed)
        payload = result.model_dump(exclude={"kept"})
        announce("lake.tidied", "lake", lake.block_name, run.id, payload)
        look_at_runs(lake)
    return result
