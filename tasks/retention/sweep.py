"""The two steps of retention: list the candidates, then remove them and nothing else."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import get_args

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, Field
from rich.filesize import decimal

from blocks import DataLake, NudgescribeAccount
from blocks.storage.errors import LakeError, LakeUnreachable
from blocks.storage.reader import read_manifests, select_newest_manifests
from nudgescribe.bases import Frozen
from nudgescribe.errors import counted
from tasks.journal.entries import Journal, Step
from tasks.journal.history import record_missing
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.refresh.history import open_refreshes
from tasks.retention.files import file_candidates, remove_file, remove_journal, remove_staging
from tasks.retention.groups import group_candidates, remove_group
from tasks.retention.rules import Ages, Candidate, Kind, cutoff
from tasks.retention.runs import remove_leftover, remove_run, run_candidates
from tasks.ui.artifacts import artifact_key, link_report, show_table
from tasks.ui.markdown import MOST_CANDIDATES_SHOWN, plain

AT_ONCE = 8


class Amount(Frozen):
    """A number of things and their size in bytes."""

    count: int
    bytes: int


class RetentionResult(Frozen):
    """What was removed, by kind; in a `dry_run` what would have been. `kept` gives the reason for
    each candidate that is still there.
    """

    dry_run: bool
    removed: dict[Kind, Amount]
    kept: dict[str, str] = Field(default={})


class CandidatesRef(Frozen):
    """The candidates for removal: the `journal` that lists them, and amounts by kind."""

    journal: str
    amounts: dict[Kind, Amount]


class _Candidates(BaseModel):
    """The candidates for removal, `listed_at` a time by the lake's clock."""

    listed_at: datetime
    candidates: list[Candidate]


@task(**RETRIED, task_run_name="list candidates in {lake.block_name}")
def list_candidates(
    lake: DataLake, account: NudgescribeAccount, ages: Ages, run: Refresh
) -> CandidatesRef:
    """List what is old and not needed, once per flow run, and show it as a table in Prefect. First
    the history gets what killed flow runs have left unwritten: their journals may go.
    """

    def compute() -> _Candidates:
        files = lake.files
        now, open_, stored = files.now(), open_refreshes(files), [*files.list_files("")]
        since = None if ages.history_days is None else cutoff(now, ages.history_days)
        if recorded := record_missing(files, stored, since):
            get_run_logger().info("Wrote %s rows of the history that were missing", recorded)
        manifests = read_manifests(files, select_newest_manifests(file.path for file in stored))
        for problem in (*open_.values(), *manifests.values()):
            if isinstance(problem, LakeError):
                get_run_logger().warning("All of its campaign is kept: %s", problem)
        candidates = [
            *file_candidates(files, stored, now, ages, open_, run),
            *run_candidates(files, stored, manifests, now, ages, open_),
        ]
        if ages.groups_days is not None:
            with account.get_client() as client:
                candidates += group_candidates(client, now, ages.groups_days, open_)
        return _Candidates(listed_at=now, candidates=sorted(candidates, key=_order))

    journal = Journal(lake.files, run.journal)
    listed = journal.step(Step.FOUND, _Candidates, compute)
    amounts = _amounts(listed.candidates)
    summary = _summary(amounts)
    summary = f"To clean up in {lake.files.root}: {summary}" if summary else "Nothing to clean up."
    key = artifact_key("retention", lake.block_name)
    link_report(show_table(_table(listed, amounts), key, plain(summary)), summary)
    return CandidatesRef(journal=run.journal, amounts=amounts)


@task(**RETRIED, task_run_name="remove candidates in {lake.block_name}")
def remove_candidates(
    lake: DataLake, account: NudgescribeAccount, listed: CandidatesRef
) -> RetentionResult:
    """Remove the candidates that are still not needed; a retry continues where the last try
    stopped.
    """
    content = Journal(lake.files, listed.journal).find(Step.FOUND, _Candidates)
    assert content
    kept: dict[str, str] = {}

    def remove(
        kinds: Iterable[Kind], remove_one: Callable[[Candidate], str | None], at_once: int = 1
    ) -> None:
        chosen = [candidate for candidate in content.candidates if candidate.kind in kinds]
        attempt = partial(_attempt, remove_one)
        with ThreadPoolExecutor(at_once) as threads:
            reasons = threads.map(attempt, chosen) if at_once > 1 else map(attempt, chosen)
            for candidate, reason in zip(chosen, reasons, strict=True):
                if reason is not None:
                    kept[candidate.target] = reason
                    get_run_logger().warning(
                        "Kept %s %s: %s", candidate.kind, candidate.target, reason
                    )

    files, listed_at = lake.files, content.listed_at
    remove(["staging"], lambda one: remove_staging(account, lake, one, listed_at))
    remove(["upload"], lambda one: files.abort_upload(one.target, one.upload_id))
    dated: list[Kind] = ["draft", "quarantine", "plan", "history"]
    remove(dated, lambda one: remove_file(files, one, listed_at), AT_ONCE)
    remove(["journal"], lambda one: remove_journal(account, lake, one, listed_at), AT_ONCE)
    remove(["leftover"], lambda one: remove_leftover(files, one, listed_at), AT_ONCE)
    remove(["lake run"], lambda one: remove_run(lake, one))
    if "customer group" in listed.amounts:
        open_ = open_refreshes(files)
        with account.get_client() as client:
            remove(["customer group"], lambda one: remove_group(client, one, open_))
    removed = _amounts(one for one in content.candidates if one.target not in kept)
    get_run_logger().info("Removed from %s: %s", files.root, _summary(removed) or "nothing")
    return RetentionResult(dry_run=False, removed=removed, kept=kept)


def _attempt(remove_one: Callable[[Candidate], str | None], candidate: Candidate) -> str | None:
    """Remove a candidate; return why it is kept, be it the store's reason: others go."""
    try:
        return remove_one(candidate)
    except LakeUnreachable:
        raise
    except LakeError as error:
        return error.problem


def _order(candidate: Candidate) -> tuple[int, str]:
    return get_args(Kind).index(candidate.kind), candidate.target


def _amounts(candidates: Iterable[Candidate]) -> dict[Kind, Amount]:
    counts, sizes = Counter[Kind](), Counter[Kind]()
    for candidate in candidates:
        counts[candidate.kind] += 1
        sizes[candidate.kind] += candidate.bytes
    return {kind: Amount(count=count, bytes=sizes[kind]) for kind, count in counts.items()}


def _summary(amounts: dict[Kind, Amount]) -> str:
    return ", ".join(
        f"{amount.count:,} {kind} ({decimal(amount.bytes)})" for kind, amount in amounts.items()
    )


def _table(listed: _Candidates, amounts: dict[Kind, Amount]) -> list[dict[str, str]]:
    """Return a row for each kind's total, then one for each candidate."""
    totals = [
        _row(kind, f"{amount.count:,} in all", "", decimal(amount.bytes))
        for kind, amount in amounts.items()
    ]
    rows = [
        _row_of(candidate, listed.listed_at)
        for candidate in listed.candidates[:MOST_CANDIDATES_SHOWN]
    ]
    if (more := len(listed.candidates) - MOST_CANDIDATES_SHOWN) > 0:
        rows.append(_row("", f"and {more:,} more", "", ""))
    return totals + rows


def _row_of(candidate: Candidate, now: datetime) -> dict[str, str]:
    target = candidate.target
    name = plain(f"{target} ({candidate.name})" if candidate.name else target)
    is_group = candidate.kind == "customer group"
    size = counted(candidate.customers, "customer") if is_group else decimal(candidate.bytes)
    return _row(
        candidate.kind, name, f"{(now - candidate.since).total_seconds() / 86400:.1f}", size
    )


def _row(kind: str, what: str, days: str, size: str) -> dict[str, str]:
    return {"kind": kind, "what": what, "days": days, "size": size}
