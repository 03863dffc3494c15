"""`nudgeflow demo`: refresh one campaign against a sandbox, and show what became of it."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from deployments.environment import keep_prefect_at
from nudgescribe.errors import NudgeflowError

if TYPE_CHECKING:  # Prefect must not be imported before its settings are made.
    from blocks import DataLake, FileCrm, NudgescribeAccount, SqlCrm
    from tasks.refresh.report import RefreshResult

PREFECT_HOME = Path(".demo")
SANDBOX = ("--rows-per-file", "1000", "--phase-seconds", "1", "--approve-after", "2")


def demo(lake: Path, list_: str, segments: str) -> None:
    """Run the demo, and print its result; `list_` names a CSV, empty is the demo's CRM."""
    print("Starting a sandbox and Prefect; the first start takes half a minute.", flush=True)
    keep_prefect_at(PREFECT_HOME)
    try:
        result = _run(lake, list_, segments)
    except NudgeflowError as error:
        sys.exit(f"The demo failed: {error}")
    console = Console()
    console.print(_table(result))
    console.print(f"The lake: {lake / result.path}", soft_wrap=True)


def _run(lake: Path, list_: str, segments: str) -> RefreshResult:
    """Refresh a new sandbox's campaign; `list_` names a CSV, empty is the demo's CRM."""
    from deployments import local

    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as meanwhile:
        data, prefect = Path(folder), meanwhile.submit(local.start_prefect)
        if list_:
            seeded = local.seed(data, "--list", list_, "--segments", segments)
            crm = local.file_crm(Path(list_))
        else:
            seeded = local.seed(data)
            crm = local.sql_crm(data / "crm.db")
        with local.sandbox(data, local.free_port(), *SANDBOX) as url:
            prefect.result()
            account, data_lake = local.save_blocks(url, seeded, crm, lake)
            return _refresh(seeded.campaign_id, account, crm, data_lake)


def _refresh(
    campaign_id: str, account: NudgescribeAccount, crm: FileCrm | SqlCrm, lake: DataLake
) -> RefreshResult:
    from flows.export import export_messages
    from flows.options import RefreshOptions
    from flows.refresh import campaign_refresh
    from tasks.customers.guardrails import Guardrails
    from tasks.refresh.report import RefreshResult

    # The lake then has run 1, with which the refresh compares its messages.
    export_messages(campaign_id, account, lake)
    result = campaign_refresh(
        campaign_id,
        account,
        crm,
        lake,
        # A list of yours grows from its first half to all of it.
        options=RefreshOptions(guardrails=Guardrails(max_growth=2)),
    )
    assert isinstance(result, RefreshResult)
    return result


def _table(result: RefreshResult) -> Table:
    table = Table(title=f"{result.campaign}, run {result.run_number}", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("rows extracted", f"{result.extracted:,}")
    table.add_row("rows accepted", f"{result.accepted:,}")
    table.add_row("rows rejected", f"{result.rejected:,}")
    table.add_row(
        "segments matched, new, orphaned", f"{result.matched}, {result.new}, {result.orphaned}"
    )
    table.add_row("files", f"{result.files:,}")
    table.add_row("rows in the lake", f"{result.rows:,}", end_section=True)
    last = result.run_diff
    changed = f"{last.changed:,} of {last.in_both:,}"
    table.add_row(f"messages changed since run {last.since}", changed)
    table.add_row("customers added, removed", f"{last.added:,}, {last.removed:,}", end_section=True)
    for step, seconds in result.seconds.items():
        table.add_row(f"seconds: {step}", f"{seconds:.1f}")
    return table
