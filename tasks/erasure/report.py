"""What an erasure came to, in numbers."""

from prefect import task

from blocks import DataLake
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError, counted
from tasks.erasure.groups import InGroups
from tasks.erasure.runs import InRuns
from tasks.erasure.tables import InTables
from tasks.policies import NEVER_CACHED
from tasks.ui.artifacts import artifact_key, link_report, show_page
from tasks.ui.markdown import plain, two_columns


class ErasureIncomplete(NudgeflowError):
    """Customer groups have not let their customers go; the lake has."""

    advice = (
        "Nudgescribe says why in the log: have the campaigns published that are on these groups, "
        "or take the customers out in the platform. Then retry this flow run."
    )


class ErasureResult(Frozen):
    """An erasure in numbers: the `customers` to erase, and where they were found.

    A step that was killed and done again counts what it found the last time.
    """

    customers: int
    in_groups: InGroups
    in_runs: InRuns
    in_tables: InTables
    staged: int


@task(**NEVER_CACHED)
def report_erasure(lake: DataLake, result: ErasureResult) -> None:
    """Show the numbers of an erasure as a page in Prefect."""
    groups, runs, tables = result.in_groups, result.in_runs, result.in_tables
    rows = {
        "to erase": counted(result.customers, "customer"),
        "deleted from groups": f"{groups.customers:,}, from {counted(groups.groups, 'group')}",
        "groups that refused": f"{groups.refused:,}",
        "taken out of runs": f"{counted(runs.rows, 'row')}, of {counted(runs.runs, 'run')}",
        "taken out of tables": f"{counted(tables.rows, 'row')}, of {counted(tables.files, 'file')}",
        "staged lists removed": f"{result.staged:,}",
    }
    name = lake.block_name
    title = f"Erasure from {plain(name)}: {counted(result.customers, 'customer')}"
    page = f"# {title}\n\n{two_columns('', rows)}\n"
    link_report(
        show_page(page, artifact_key("erasure", name), title),
        f"{counted(result.customers, 'customer', 'was')} erased: {groups.customers:,} left "
        f"customer groups, {counted(runs.rows, 'message')} the lake; "
        f"{counted(groups.refused, 'group')} refused.",
    )
