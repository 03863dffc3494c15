"""What nobody needs any more: listed first, then removed, and nothing but what was listed."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import get_args

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict
from rich.filesize import decimal

from blocks import DataLake, NudgescribeAccount
from tasks.campaigns import Refresh
from tasks.customers.staging import folder_of, noted
from tasks.policies import READ
from tasks.refresh.claim import open_refreshes
from tasks.retention.files import old_files, remove_file, remove_staging
from tasks.retention.groups import old_groups, remove_group
from tasks.retention.rules import Ages, Kind, Old
from tasks.retention.runs import old_runs, remove_leftover, remove_run
from tasks.ui.artifacts import artifact_key

MOST_SHOWN = 500
"""Rows of the UI's table, which shows all of them on one page."""
AT_ONCE = 8


class Amount(BaseModel):
    model_config = ConfigDict(frozen=True)

    count: int
    bytes: int


class Tidied(BaseModel):
    """What went, by its kind; in a `dry_run` what would have gone. `kept` says why things that were
    listed are still there.
    """

    model_config = ConfigDict(frozen=True)

    dry_run: bool
    gone: dict[Kind, Amount]
    kept: dict[str, str] = {}


class Listed(BaseModel):
    """A list that lies under `path` in the lake's staging, in numbers."""

    model_config = ConfigDict(frozen=True)

    path: str
    amounts: dict[Kind, Amount]


class _List(BaseModel):
    """What is old, `seen` at this time by the lake's clock."""

    seen: datetime
    old: list[Old]


@task(**READ, task_run_name="list what is old in {lake.block_name}")
def list_old(lake: DataLake, account: NudgescribeAccount, ages: Ages, refresh: Refresh) -> Listed:
    """Lists what is old and not needed, once in a flow run, and shows it as a table."""
    lake, path = lake, f"{folder_of(refresh)}/old.json"

    def find_out() -> _List:
        files = lake.files
        seen, open_, found = files.now(), open_refreshes(files), [*files.list_files("")]
        old = [
            *old_files(files, found, seen, ages, open_, refresh),
            *old_runs(files, found, seen, ages, open_),
        ]
        if ages.groups_days is not None:
            ids = {entry.refresh.id for entry in open_.values()}
            with account.get_client() as client:
                old += old_groups(client, seen, ages.groups_days, ids)
        return _List(seen=seen, old=sorted(old, key=_in_order))

    listed = noted(lake, path, _List, find_out)
    amounts = _amounts(listed.old)
    create_table_artifact(
        _table(listed, amounts),
        key=artifact_key("retention", lake.block_name),
        description=f"Old in {lake.files.root}: {_said(amounts)}",
    )
    get_run_logger().info("Old in %s: %s", lake.files.root, _said(amounts))
    return Listed(path=path, amounts=amounts)


@task(**READ, task_run_name="remove what is old in {lake.block_name}")
def remove_old(lake: DataLake, account: NudgescribeAccount, listed: Listed) -> Tidied:
    """Removes what was listed, unless it is needed now. Repeated, it goes on where it stopped."""
    content = _List.model_validate_json(lake.files.read(listed.path))
    kept: dict[str, str] = {}

    def remove(kinds: Iterable[Kind], how: Callable[[Old], str | None], at_once: int = 1) -> None:
        some = [each for each in content.old if each.kind in kinds]
        with ThreadPoolExecutor(at_once) as threads:
            reasons = threads.map(how, some) if at_once > 1 else map(how, some)
            for each, why in zip(some, reasons, strict=True):
                if why is not None:
                    kept[each.what] = why
                    get_run_logger().warning("Kept %s %s: %s", each.kind, each.what, why)

    files, seen = lake.files, content.seen
    remove(["staging"], lambda old: remove_staging(files, old, seen))
    remove(["upload"], lambda old: files.abort_upload(old.what, old.detail))
    remove(["draft", "quarantine", "plan"], lambda old: remove_file(files, old, seen), AT_ONCE)
    remove(["leftover"], lambda old: remove_leftover(files, old, seen), AT_ONCE)
    remove(["lake run"], lambda old: remove_run(lake, old))
    if "customer group" in listed.amounts:
        ids = {entry.refresh.id for entry in open_refreshes(files).values()}
        with account.get_client() as client:
            remove(["customer group"], lambda old: remove_group(client, old, ids))
    gone = _amounts(each for each in content.old if each.what not in kept)
    get_run_logger().info("Removed from %s: %s", files.root, _said(gone))
    return Tidied(dry_run=False, gone=gone, kept=kept)


def _in_order(old: Old) -> tuple[int, str]:
    return get_args(Kind).index(old.kind), old.what


def _amounts(old: Iterable[Old]) -> dict[Kind, Amount]:
    counts, sizes = Counter[Kind](), Counter[Kind]()
    for each in old:
        counts[each.kind] += 1
        sizes[each.kind] += each.bytes
    return {kind: Amount(count=count, bytes=sizes[kind]) for kind, count in counts.items()}


def _said(amounts: dict[Kind, Amount]) -> str:
    parts = [f"{each.count:,} {kind} ({decimal(each.bytes)})" for kind, each in amounts.items()]
    return ", ".join(parts) or "nothing"


def _table(listed: _List, amounts: dict[Kind, Amount]) -> list[dict[str, str]]:
    """The totals, then one thing a row."""
    totals = [
        _row(kind, f"{each.count:,} in all", "", decimal(each.bytes))
        for kind, each in amounts.items()
    ]
    rows = [_row_of(each, listed.seen) for each in listed.old[:MOST_SHOWN]]
    if (more := len(listed.old) - MOST_SHOWN) > 0:
        rows.append(_row("", f"and {more:,} more", "", ""))
    return totals + rows


def _row_of(old: Old, seen: datetime) -> dict[str, str]:
    name = f"{old.what} ({old.name})" if old.name else old.what
    size = f"{old.customers:,} customers" if old.kind == "customer group" else decimal(old.bytes)
    return _row(old.kind, name, f"{(seen - old.since).total_seconds() / 86400:.1f}", size)


def _row(kind: str, what: str, days: str, size: str) -> dict[str, str]:
    return {"kind": kind, "what": what, "days": days, "size": size}
