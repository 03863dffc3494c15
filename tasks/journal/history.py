"""The lake's history: a row of `sync_runs` for each journal, and who was changed by it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from prefect import task
from pydantic import Field

from blocks import DataLake
from blocks.storage.errors import LakeError, LakeUnreachable, TooNew
from blocks.storage.files import Files, StoredFile
from blocks.storage.history import SYNC_CHANGES, SYNC_RUNS, write_changes, write_run
from blocks.storage.manifest import NO_CAMPAIGN
from blocks.storage.tombstones import leave_out_erased
from nudgescribe.bases import Frozen
from nudgescribe.lazy import pl
from tasks.journal.entries import Entry, Journal, JournalDamaged, Series, Step
from tasks.journal.owners import Owner
from tasks.journal.refresh import FLOW_RUN, JOURNALS, REFRESHES, Claimed, Problem, Refresh
from tasks.policies import RETRIED
from tasks.telemetry.measures import count_flow_run

REFRESH_FLOW = "campaign-refresh"
_DIFF = ("added", "changed", "removed", "unchanged")
_NUMBERS = (
    *("extracted", "rejected", *_DIFF),
    *("matched", "new", "orphaned", "rows", "bytes", "run_number", "previous_run"),
)
_FACTS: list[tuple[Step, Sequence[str]]] = [
    (Step.FOUND, ()),
    (Step.VALIDATED, ()),
    (Step.COMPARED, ()),
    (Step.GROUPED, ()),
    (Step.CHANGED, ()),
    (Step.INITIATED, ("run",)),
    (Step.COMMITTED, ("run",)),
    (Step.COUNTED, ("counts",)),
    (Step.ENDED, ("result",)),
]
"""Where an entry has facts for the row; later ones count."""
_FOLDER = re.compile(
    rf"(?:{REFRESHES}/[^/]+/\d{{8}}|{JOURNALS}/[^/]+/[0-9a-f-]{{36}}(?:-\d+)?)(?=/)"
)


class Counted(Frozen):
    """What a flow run that is no refresh has come to, in numbers; `outcome` is empty if it has
    simply been completed.
    """

    outcome: str = ""
    counts: dict[str, int] = Field(default={})


@task(**RETRIED)
def note_counts(lake: DataLake, run: Refresh, counted: Counted) -> None:
    """Note in the flow run's journal what it has come to, for its row in the history."""
    Journal(lake.files, run.journal).create(Step.COUNTED, counted)


@task(**RETRIED)
def record_refresh(lake: DataLake, refresh: Refresh) -> None:
    """Write the row of a refresh that stays open."""
    record(lake.files, refresh.journal)


def record(files: Files, folder: str, *, count: bool = False) -> None:
    """Write a journal's row of `sync_runs`, which is what its entries tell and nothing else; a
    journal that cannot be read has none. `count` its outcome, if it is a new one.

    Others may add an entry meanwhile, so this looks again after each write.
    """
    with suppress(JournalDamaged, TooNew):
        written, row = None, _row(files, folder)
        while row != written:
            write_run(files, row.partition, row.name, row.values)
            written, row = row, _row(files, folder)
        if count:
            count_flow_run(row.values["flow"], row.values["outcome"])


def record_missing(files: Files, stored: Sequence[StoredFile], since: datetime | None) -> int:
    """Write the rows that killed flow runs have left unwritten, or older than their journal; those
    of journals that were last written before `since` are gone for good. Return their number. Later
    tries of a flow run come last.
    """
    written = {
        _row_key(file.path): file.modified
        for file in stored
        if file.path.startswith(f"{SYNC_RUNS}/")
    }
    changed: dict[str, datetime] = {}
    for file in stored:
        if found := _FOLDER.match(file.path):
            changed[found[0]] = max(file.modified, changed.get(found[0], file.modified))
    missing = [
        folder
        for folder, modified in sorted(changed.items(), key=lambda each: (len(each[0]), each))
        if (since is None or modified >= since)
        and ((at := written.get(_key(folder))) is None or at <= modified)
    ]
    for folder in missing:
        try:
            record(files, folder)
        except LakeUnreachable:
            raise
        except LakeError:
            continue
    return len(missing)


def changes_file(refresh: Refresh, kind: Literal["list", "customers", "since"]) -> str:
    """Return the path of one of the flow run's files of `sync_changes`; all its tries have one.

    They tell who of the `list` was rejected or left out, which `customers` were changed, and who
    was suppressed `since`.
    """
    name = _key(refresh.journal).rpartition("/")[2]
    return f"{SYNC_CHANGES}/{partition_of(refresh)}/{name}-{kind}.parquet"


def record_changes(lake: DataLake, refresh: Refresh, frames: Iterable[pl.DataFrame]) -> None:
    """Write who was changed: frames with `customer_id`, `change` and perhaps `field`.

    A try before this one, whose journal has ended, may have changed some: they stay.
    """
    path = changes_file(refresh, "customers")

    tried_before = refresh.journal.startswith(JOURNALS) and not refresh.journal.endswith(refresh.id)
    if tried_before and lake.files.exists(path):
        before = pl.read_parquet(lake.files.read(path)).drop("run_id")
        both = pl.concat([before, *_shown(lake, frames)], how="diagonal")
        write_changes(lake.files, path, refresh.id, iter([both.unique(maintain_order=True)]))
    else:
        write_changes(lake.files, path, refresh.id, _shown(lake, frames))


def as_changes(
    lake: DataLake, customers: Iterable[pl.DataFrame], change: str
) -> Iterator[pl.DataFrame]:
    """Yield frames of customers as rows of `sync_changes`, all with the same change."""
    for frame in _shown(lake, customers):
        yield frame.with_columns(change=pl.lit(change))


def _shown(lake: DataLake, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    # What was read before an erasure may name its customers.
    for frame in leave_out_erased(lake.tombstones(), frames, "customer_id"):
        ids = lake.show_identifiers(frame["customer_id"].cast(pl.String))
        yield frame.with_columns(ids.alias("customer_id"))


def partition_of(refresh: Refresh) -> str:
    """Return the partition of its campaign; that of none for a flow run that is no refresh."""
    if refresh.journal.startswith(f"{REFRESHES}/"):
        return refresh.journal.split("/")[1]
    return refresh.partition or NO_CAMPAIGN


class _Row(Frozen):
    partition: str
    name: str
    values: dict[str, Any]


def _row(files: Files, folder: str) -> _Row:
    journal = Journal(files, folder)
    entries, contents = journal.entries(), journal.contents()
    if Step.CLAIMED not in entries:
        raise JournalDamaged(f"{folder} has no {Step.CLAIMED}.json.")
    claimed = journal.parse(Step.CLAIMED, entries[Step.CLAIMED], Claimed)
    attempt = contents.newest.get(Series.OWNER, 0)
    owner = journal.numbered(Series.OWNER, attempt, Owner) or claimed.owner
    problem = journal.numbered(Series.PROBLEM, contents.newest.get(Series.PROBLEM, 0), Problem)
    if problem and problem.attempt != attempt:
        problem = None
    ended = entries.get(Step.ENDED)
    started = entries[Step.CLAIMED].written_at
    refresh = claimed.refresh.model_copy(update={"journal": folder, "partition": claimed.partition})
    text = ended.content.get("problem") if ended else problem and problem.problem
    error = ended.content.get("error") if ended else None
    values = {
        "run_id": refresh.id,
        "flow": folder.split("/")[1] if folder.startswith(JOURNALS) else REFRESH_FLOW,
        "flow_run_id": owner.flow_run,
        "outcome": _outcome(ended, problem, entries.get(Step.COUNTED)),
        "error": error or (problem.error if problem and text else None),
        "problem": text or None,
        "planned_at": refresh.started,
        "started_at": started,
        "ended_at": ended and ended.written_at,
        "seconds": (ended.written_at - started).total_seconds() if ended else None,
        "steps": _steps(entries),
        "crm": claimed.crm or None,
        "project": max(entries.values(), key=lambda entry: entry.written_at).project,
        **_counts(entries),
    }
    return _Row(
        partition=partition_of(refresh), name=_key(folder).rpartition("/")[2], values=values
    )


def _outcome(ended: Entry | None, problem: Problem | None, counted: Entry | None) -> str:
    if ended is None:
        return "failed" if problem else "open"
    match ended.content.get("outcome"):
        case None if ended.content.get("problem"):
            return "failed"
        case None:
            return counted.content.get("outcome", "completed") if counted else "completed"
        case "released":  # before anything was changed
            return "unchanged" if ended.content.get("result") else "failed"
        case outcome:
            return str(outcome)


def _counts(entries: Mapping[Step, Entry]) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    for step, path in _FACTS:
        content: dict[str, Any] = entries[step].content if step in entries else {}
        if content.get("outcome") == "released":
            continue  # its result is that of the refresh before
        for name in path:
            content = content.get(name) or {}
        counts |= {name: content[name] for name in _NUMBERS if isinstance(content.get(name), int)}
        if isinstance(group := content.get("customer_group_id"), str):
            counts["customer_group_id"] = group
        match content.get("accepted"):
            case int(rows) | {"rows": int(rows)}:
                counts["accepted"] = rows
            case _:
                pass
        diff: dict[str, Any] = content.get("run_diff") or {}
        if "since" in diff and "added" not in counts:
            # Numbers that are 0 are not written down.
            counts |= {
                name: diff.get(name, 0) for name in ("added", "changed", "removed", "unchanged")
            }
    return counts | _left_out(entries)


def _left_out(entries: Mapping[Step, Entry]) -> dict[str, int]:
    """Return the numbers of customers who were left out, where there was a list or a share."""
    counts: dict[str, int] = {}
    match entries.get(Step.VALIDATED):
        case Entry(content={"suppression": {"customers": int(customers)}}):
            counts["suppressed"] = customers
            if committed := entries.get(Step.COMMITTED):
                counts["suppressed_since"] = committed.content.get("suppressed_since", 0)
        case _:
            pass
    match entries.get(Step.VALIDATED):
        case Entry(content={"holdout": {"rows": int(customers)}}):
            counts["held_out"] = customers
        case _:
            pass
    return counts


def _steps(entries: Mapping[Step, Entry]) -> str:
    """Return the seconds between each entry and the one before it, as JSON: a CSV can hold it."""
    timed = sorted(entries.items(), key=lambda each: each[1].written_at)
    return json.dumps(
        {
            step.partition("-")[2]: (entry.written_at - before.written_at).total_seconds()
            for (_, before), (step, entry) in pairwise(timed)
        }
    )


def _key(folder: str) -> str:
    """Return what tells a journal's row from others: all tries of a flow run have one."""
    top, _, rest = folder.partition("/")
    return rest if top == REFRESHES else rest.rpartition("/")[2][:FLOW_RUN]


def _row_key(path: str) -> str:
    _, partition, name = path.split("/")[:3] if path.count("/") == 2 else ("", "", "")
    stem = name.removesuffix(".parquet")
    return stem if len(stem) == FLOW_RUN else f"{partition}/{stem}"
