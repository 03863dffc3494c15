"""`nudgeflow demo`: refresh one campaign against a sandbox and tell what became of it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deployments.environment import free_port, keep_prefect_at
from nudgescribe.errors import NudgeflowError, counted
from sandbox import extra

if TYPE_CHECKING:  # Prefect must not be imported before its settings are made.
    from blocks import CrmSource, DataLake, NudgescribeAccount
    from deployments.demo_list import DemoList
    from flows.options import RefreshOptions
    from sandbox.seed import Seeded
    from tasks.refresh.report import RefreshResult

PREFECT_HOME = Path(".demo")
SANDBOX = ("--rows-per-file", "1000", "--phase-seconds", "1", "--approve-after", "2")


def demo(lake: str, list_: str, segments: str, delimiter: str, encoding: str) -> None:
    """Run the demo, and tell its result; `list_` names a CSV, empty is the demo's CRM."""
    if not extra.is_installed():
        sys.exit(extra.MISSING)
    if (segments or delimiter or encoding) and not list_:
        sys.exit(f"The demo failed: {_NO_LIST}")
    folder = _make_lake(lake)
    # Warnings alone: each step of a flow run has a line of its own in Prefect's log.
    port = free_port()
    keep_prefect_at(PREFECT_HOME, port, PREFECT_LOGGING_LEVEL="WARNING")
    try:
        _tell(_run(folder, port, _read_list(list_, segments, delimiter, encoding)), folder)
    except (NudgeflowError, OSError) as error:
        sys.exit(f"The demo failed: {error}")
    except KeyboardInterrupt:
        sys.exit("The demo was stopped.")


_NO_LIST = (
    "--segments, --delimiter and --encoding are about a list of yours. Name it with --list (of "
    "make: LIST=), or leave them out."
)


def _make_lake(lake: str) -> Path:
    """Return the lake's folder, made before anything is started. Exits if that cannot be done."""
    if "://" in lake:
        sys.exit(
            "The demo failed: it writes to a folder on this machine, and --lake (of make: LAKE=) "
            "is a URL. Name a folder."
        )
    folder = Path(lake)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"The demo failed: {lake} cannot be the lake's folder: {error.strerror}.")
    return folder


def _read_list(list_: str, segments: str, delimiter: str, encoding: str) -> DemoList | None:
    """Return the list that is named; None for the demo's CRM."""
    if not list_:
        return None
    from deployments.demo_list import read_list

    return read_list(Path(list_), segments, delimiter or None, encoding or None)


def _run(lake: Path, port: int, listed: DemoList | None) -> RefreshResult:
    """Refresh a new sandbox's campaign with the list, or with the demo's CRM."""
    from deployments import local

    print("Starting a sandbox and Prefect; the first start takes half a minute.", flush=True)
    with TemporaryDirectory() as folder, local.prefect_server(port) as prefect:
        data = Path(folder)
        seeded, crm = _seed(data, listed)
        with local.sandbox(data, free_port(), *SANDBOX) as url:
            prefect.wait()
            account, data_lake = local.save_blocks(url, seeded, crm, lake)
            return _refresh(seeded.campaign_id, account, crm, data_lake, _options(listed))


def _seed(data: Path, listed: DemoList | None) -> tuple[Seeded, CrmSource]:
    """Seed the sandbox with a campaign whose run 1 is published, and return the CRM of today."""
    from deployments import local

    if listed is None:
        print(_STORY)
        return local.seed(data), local.sql_crm(data / "crm.db")
    print(f"Run 1 is made of the first half of your {counted(listed.frame.height, 'row')}.")
    file = data / "list.csv"
    listed.write_csv(file)
    segments = ("--list", str(file), "--segments", ",".join(listed.segments))
    return local.seed(data, *segments), listed.crm


_STORY = """\
Run 1 of the campaign Welcome back was written to 5,000 customers. Since then, in the CRM, 100
customers were added, 100 removed, plan legacy became plan student, and 51 rows have mistakes."""


def _options(listed: DemoList | None) -> RefreshOptions:
    from flows.options import RefreshOptions
    from tasks.customers.guardrails import Guardrails
    from tasks.customers.mapping import FieldSource

    if listed is None:
        return RefreshOptions()
    fields = {field: FieldSource(column=column) for field, column in listed.columns.items()}
    # It grows from its first half to all of it, and nobody is written to.
    wide = Guardrails(max_rejected=0.5, max_growth=1000, max_new_segments=10_000)
    return RefreshOptions(fields=fields, guardrails=wide)


def _refresh(
    campaign_id: str,
    account: NudgescribeAccount,
    crm: CrmSource,
    lake: DataLake,
    options: RefreshOptions,
) -> RefreshResult:
    from flows.export import export_messages
    from flows.refresh import campaign_refresh
    from tasks.refresh.report import RefreshResult

    with _step("Fetching the messages of run 1"):
        # The refresh compares its messages with them.
        export_messages(campaign_id, account, lake)
    with _step("Refreshing the campaign: list, customer group, run 2, review, messages"):
        # Parameters keep their types when the flow is called from Python.
        result = campaign_refresh(campaign_id, account, crm, lake, options=options)  # pyright: ignore[reportArgumentType]
    assert isinstance(result, RefreshResult)
    return result


@contextmanager
def _step(name: str) -> Generator[None]:
    print(f"{name} ...", end="", flush=True)
    try:
        yield
    except BaseException:
        print(" failed.")
        raise
    print(" done.")


def _tell(result: RefreshResult, lake: Path) -> None:
    """Print the result in sentences."""
    from nudgescribe.fields import REASONS
    from tasks.refresh.report import sentences

    print(f"\n{result.campaign}, run {result.run_number}, is published.")
    for sentence in sentences(result):
        print(f"- {sentence}")
    for rule in sorted(result.broken_rules, key=lambda rule: rule.rows, reverse=True)[:5]:
        why = REASONS.get(rule.code, rule.code)
        print(f"  Rejected: {counted(rule.rows, 'row')}, field {rule.field}: {why}.")
    print(f"- It took {counted(round(sum(result.seconds.values())), 'second')}.")
    print(f"\nThe messages: {lake / result.path}")


if __name__ == "__main__":  # a command in version 0.1
    sys.exit("This is `nudgeflow demo` now.")
