"""What is old removed from the lake and the service, and shown before."""

from prefect import flow
from pydantic import Field

from blocks import DataLake, NudgescribeAccount
from flows.run.flow_run import this_refresh
from tasks.customers.staging import remove_staged
from tasks.retention.rules import Ages
from tasks.retention.sweep import Tidied, list_old, remove_old
from tasks.ui.events import announce


class RetentionOptions(Ages):
    """What goes, and whether it does."""

    dry_run: bool = Field(
        default=True, description="Only show what would go, as a table; switch it off to remove it."
    )


@flow(name="lake-retention", flow_run_name="retention-{lake.block_name}")
def lake_retention(
    lake: DataLake,
    account: NudgescribeAccount,
    options: RetentionOptions = RetentionOptions(),  # noqa: B008 - frozen
) -> Tidied:
    """Lists what is old in the lake and, if wished, among customer groups; then removes just that.

    Never a campaign's newest run in the lake, the groups of its last two runs, or what a refresh
    that is open needs. A retry goes on with the same list.

    Args:
        lake: The data lake.
        account: The Nudgescribe account; needed for options.groups_days only.
        options: How old things must be to go, and whether they do.
    """
    me = this_refresh()
    listed = list_old(lake, account, options, me)
    if options.dry_run:
        tidied = Tidied(dry_run=True, gone=listed.amounts)
    else:
        tidied = remove_old(lake, account, listed)
    remove_staged(lake, me)
    announce("lake.tidied", "lake", lake.block_name, me.id, tidied.model_dump(exclude={"kept"}))
    return tidied
