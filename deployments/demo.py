"""`make demo`: one campaign refreshed against a sandbox, watched, and summed up in a table."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from deployments.environment import keep_prefect_at

PREFECT_HOME = Path(".demo")
SANDBOX = ("--rows-per-file", "1000", "--phase-seconds", "1", "--approve-after", "2")


def main() -> None:
    parser = ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--lake", type=Path, default=Path("lake"))
    parser.add_argument("--list", default="", help="a CSV of yours instead of the demo's CRM")
    parser.add_argument("--segments", default="", help="its columns to segment by: a,b")
    options = parser.parse_args()
    keep_prefect_at(PREFECT_HOME)
    from deployments import local
    from flows.export import export_messages
    from flows.options import RefreshOptions
    from flows.refresh import campaign_refresh
    from nudgescribe.errors import NudgeflowError
    from tasks.customers.guardrails import Guardrails
    from tasks.refresh.report import RefreshResult

    print(
        "Starting a sandbox and a Prefect server; the first time takes half a minute.", flush=True
    )
    with TemporaryDirectory() as folder:
        data = Path(folder)
        if options.list:
            file = Path(options.list)
            seeded = local.seeded(data, "--list", str(file), "--segments", options.segments)
            crm = local.file_crm(file)
        else:
            seeded = local.seeded(data)
            crm = local.sql_crm(data / "crm.db")
        with local.sandbox(data, local.free_port(), *SANDBOX) as url:
            blocks = local.save_blocks(url, seeded, crm, options.lake)
            campaign_id, (account, lake) = seeded.campaign_id, blocks
            try:
                # As after a first refresh; what the next one brings is compared with it.
                export_messages(campaign_id, account, lake)
                # A list of yours grows from its first half to all of it.
                result = campaign_refresh(
                    campaign_id,
                    account,
                    crm,
                    lake,
                    options=RefreshOptions(guardrails=Guardrails(max_growth=2)),
                )
            except NudgeflowError as error:
                sys.exit(f"The demo failed: {error}")
    assert isinstance(result, RefreshResult)
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
    console = Console()
    console.print(table)
    console.print(f"The lake: {options.lake / result.path}", soft_wrap=True)


if __name__ == "__main__":
    main()
