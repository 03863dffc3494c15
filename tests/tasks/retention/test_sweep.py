"""What is listed as old, what goes of it, and what stays whatever is old."""

import errno
import os
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from blocks import DataLake
from blocks.extras import ExtraMissing
from blocks.storage.files import Files
from blocks.storage.manifest import campaign_partition
from nudgescribe.contract import UpdateGroup
from nudgescribe.errors import ServerError
from tasks.campaigns import CampaignRef
from tasks.customers.upload import find_group, find_or_create_group
from tasks.journal.entries import Step
from tasks.journal.owners import Owner
from tasks.journal.refresh import Claimed, Refresh
from tasks.refresh.history import History
from tasks.refresh.standing import Ended
from tasks.retention.rules import CHANGED, OPEN, Ages
from tasks.retention.runs import NEEDED, NEWEST
from tasks.retention.sweep import CandidatesRef, RetentionResult, list_candidates, remove_candidates
from tests.conftest import Company
from tests.support.lakes import write_run
from tests.support.stores import StoppableStore, store
from tests.tasks.conftest import Local
from tests.tasks.conftest import new_refresh as another

__all__ = ["store"]

ALL = Ages(quarantine_days=7, plans_days=7, runs_days=7)
RUN = "messages/campaign_id=C/run_number={}"
CUSTOMERS = {"01": "a", "02": "b"}


def age(lake: DataLake, folder: str = "", days: float = 8) -> None:
    """Makes all files of a folder that old."""
    time = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    for path in paths(lake, folder):
        os.utime(lake.files.url(path), (time, time))


def paths(lake: DataLake, folder: str = "") -> set[str]:
    return {file.path for file in lake.files.list_files(folder)}


def listed(local: Local, refresh: Refresh, ages: Ages = ALL) -> CandidatesRef:
    return list_candidates.fn(local.lake, local.account, ages, refresh)


def shown(local: Local) -> list[tuple[str, str]]:
    """Kind and place of what the table shows, without the totals."""
    rows = [
        (row["kind"], row["what"].replace("\\", ""))
        for row in local.artifacts["retention-not-saved"]
    ]
    return [row for row in rows if not row[1].endswith(" in all")]


def removed(local: Local, refresh: Refresh, ages: Ages = ALL) -> RetentionResult:
    return remove_candidates.fn(local.lake, local.account, listed(local, refresh, ages))


def begin_refresh(lake: DataLake, campaign_id: str = "C", me: Refresh | None = None) -> int:
    """A refresh that is open, by a flow run that nobody knows; returns its number."""
    me = me or another()
    history = History(lake.files, campaign_partition(campaign_id))
    number = history.newest_number() + 1
    owner = Owner(flow_run=me.id, host="elsewhere", pid=1)
    assert history.begin(number, Claimed(refresh=me, owner=owner))
    return number


def write_runs(lake: DataLake, *numbers: int, campaign_id: str = "C") -> None:
    for number in numbers:
        write_run(lake, campaign_id, number, CUSTOMERS)


@pytest.mark.parametrize(
    ("ages", "gone"),
    [
        (Ages(), []),
        (Ages(runs_kept=1), [1, 2, 3]),
        (Ages(runs_kept=3), [1]),
        (Ages(runs_days=7), [1, 2]),
        (Ages(runs_days=7, runs_kept=3), [1]),
    ],
    ids=str,
)
def test_runs_are_removed_by_number_and_age(
    local: Local, refresh: Refresh, ages: Ages, gone: list[int]
) -> None:
    lake = local.lake
    write_runs(lake, 1, 2, 3, 4)
    write_runs(lake, 1, campaign_id="D")
    age(lake)
    age(lake, RUN.format(1), days=30)
    age(lake, RUN.format(3), days=1)
    before = paths(lake)
    found = listed(local, refresh, ages)
    names = [("lake run", f"{RUN.format(number)}/_manifest-00000.json") for number in gone]
    assert shown(local) == names
    assert paths(lake) == before | {f"{found.journal}/01-found.json"}
    tidied = remove_candidates.fn(local.lake, local.account, found)
    assert tidied == RetentionResult(dry_run=False, removed=found.amounts)
    assert before - paths(lake) == {
        path for path in before if path.startswith(tuple(f"{RUN.format(each)}/" for each in gone))
    }
    assert lake.read("C").shape == lake.read("D").shape == (2, 2)


def test_run_is_kept_when_pointer_names_it(local: Local, refresh: Refresh) -> None:
    write_runs(local.lake, 1, 3, 2)
    age(local.lake)
    assert removed(local, refresh).removed["lake run"].count == 1
    assert local.lake.runs()["run_number"].to_list() == [2, 3]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("file_format", ["parquet", "delta"])
def test_readers_see_whole_run_or_none_when_removal_stops(
    local: Local, refresh: Refresh, monkeypatch: pytest.MonkeyPatch, file_format: Any
) -> None:
    lake = local.lake = DataLake(root=f"{local.folder}/lake", format=file_format)
    write_run(lake, "C", 1, {"of": "an earlier state"})
    write_runs(lake, 1, 2)
    age(lake)
    found = listed(local, refresh, Ages(runs_days=7, staging_days=30))

    def rows() -> dict[int, int]:
        seen = {number: lake.read("C", number).shape[0] for number in lake.runs()["run_number"]}
        if file_format == "delta":
            table = pl.scan_delta(lake.files.url("messages")).collect()
            assert dict(table["run_number"].value_counts().rows()) in (seen, {2: 2})
        return seen

    assert rows() == {1: 2, 2: 2}
    remove, states = Files.remove, [rows()]
    for stop in count():
        turn = count()

        def killed(files: Files, path: str) -> None:
            if path.startswith("messages/") and next(turn) == stop:  # noqa: B023
                raise Killed
            remove(files, path)

        monkeypatch.setattr(Files, "remove", killed)
        try:
            tidied = remove_candidates.fn(local.lake, local.account, found)
        except Killed:
            states.append(rows())
        else:
            break
    assert [len(state) for state in states] == [2, 2, 2, 1]
    assert rows() == {2: 2}
    assert tidied == RetentionResult(dry_run=False, removed=found.amounts)
    assert len(paths(lake, RUN.format(1))) == 2
    assert removed(local, another()).removed["leftover"].count == 2
    assert rows() == {2: 2}


def test_delta_table_is_kept_when_it_has_another_generation(local: Local, refresh: Refresh) -> None:
    """As it does where the run was written in another format since."""
    delta = local.lake = DataLake(root=f"{local.folder}/lake", format="delta")
    write_runs(delta, 1)
    write_runs(DataLake(root=delta.root), 1, 2)
    age(delta)
    log = paths(delta, "messages/_delta_log")
    assert removed(local, refresh).removed["lake run"].count == 1
    assert paths(delta, "messages/_delta_log") == log


def test_runs_of_delta_table_are_not_listed_without_the_extra(
    local: Local, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = DataLake(root=local.lake.root, format="delta")
    write_runs(delta, 1, 2)
    age(delta)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ExtraMissing, match=r"nudgeflow\[delta\]"):
        listed(local, refresh)
    assert listed(local, refresh, Ages(quarantine_days=7)).amounts == {}


def test_files_are_kept_while_refresh_is_open(local: Local, refresh: Refresh) -> None:
    files = local.lake.files
    write_runs(local.lake, 1, 1, 2)
    for place in ("quarantine", "plans"):
        files.write(f"{place}/campaign_id=C/old.parquet", b"rows")
    before = paths(local.lake)
    number = begin_refresh(local.lake)
    age(local.lake)
    assert listed(local, refresh).amounts == {}
    History(files, "campaign_id=C").end(number, Ended(outcome="released"))
    found = listed(local, another())
    assert {kind: each.count for kind, each in found.amounts.items()} == {
        "leftover": 2,
        "quarantine": 1,
        "plan": 1,
        "lake run": 1,
    }
    begin_refresh(local.lake)
    kept = remove_candidates.fn(local.lake, local.account, found)
    assert kept.removed == {}
    assert {*kept.kept.values()} == {OPEN}
    assert before <= paths(local.lake)


def test_files_are_kept_when_changed_since_listed(local: Local, refresh: Refresh) -> None:
    lake, files = local.lake, local.lake.files
    write_runs(lake, 1, 2, 3, 3)
    part = f"{RUN.format(2)}/part-00000-00000-dead.parquet"
    quarantined = "quarantine/campaign_id=C/old.parquet"
    for path in ("staging/dead/list", quarantined, part):
        files.write(path, b"")
    age(lake)
    found = listed(local, refresh)
    replaced = [what for kind, what in shown(local) if kind == "leftover" and "=3/" in what]
    for path in ("staging/dead/page", quarantined, part):
        files.write(path, b"")
    write_runs(lake, 1)
    files.remove(f"{RUN.format(3)}/_manifest-00001.json")
    kept = remove_candidates.fn(local.lake, local.account, found).kept
    assert kept == {
        "staging/dead": CHANGED,
        quarantined: CHANGED,
        part: CHANGED,
        f"{RUN.format(1)}/_manifest-00000.json": CHANGED,
        **dict.fromkeys(replaced, NEEDED),
    }
    assert lake.read("C", 3).shape == (2, 2)
    files.remove(RUN.format(3))
    files.remove("messages/campaign_id=C/_latest.json")
    last = f"{RUN.format(2)}/_manifest-00000.json"
    assert ("lake run", last) in shown(local)


def test_run_is_kept_when_newest_since_listed(local: Local, refresh: Refresh) -> None:
    write_runs(local.lake, 1, 2)
    age(local.lake)
    found = listed(local, refresh)
    local.lake.files.remove(RUN.format(2))
    kept = remove_candidates.fn(local.lake, local.account, found).kept
    assert kept == {f"{RUN.format(1)}/_manifest-00000.json": NEWEST}


def test_candidates_are_listed_once_per_flow_run(local: Local, refresh: Refresh) -> None:
    write_runs(local.lake, 1, 2)
    age(local.lake)
    first = listed(local, refresh)
    write_runs(local.lake, 3)
    age(local.lake, "messages")
    assert listed(local, refresh) == first
    tidied = remove_candidates.fn(local.lake, local.account, first)
    assert remove_candidates.fn(local.lake, local.account, first) == tidied
    assert local.lake.runs()["run_number"].to_list() == [2, 3]


def test_parts_are_kept_while_export_may_need_them(local: Local, refresh: Refresh) -> None:
    files = local.lake.files
    part = f"{RUN.format(1)}/part-00000-00000-1a2b3c4d.parquet"
    files.write(part, b"")
    age(local.lake)
    files.write("staging/dead/1a2b3c4d/pages/00000-00000.json", b"{}")
    assert removed(local, refresh).removed == {}
    age(local.lake)
    assert removed(local, another()).removed.keys() == {"staging"}
    assert removed(local, another()).removed.keys() == {"leftover"}


def test_draft_in_staging_is_removed_with_its_folder(local: Local, refresh: Refresh) -> None:
    for folder in ("staging/dead", "plans/campaign_id=C", "messages/campaign_id=C"):
        local.lake.files.draft(f"{folder}/x").file.write_bytes(b"half")
    age(local.lake)
    found = removed(local, refresh).removed
    assert {kind: each.count for kind, each in found.items()} == {"staging": 1, "draft": 2}
    assert paths(local.lake) == {f"{refresh.journal}/01-found.json"}


def test_table_shows_totals_and_first_candidates(
    local: Local, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.retention.sweep.MOST_CANDIDATES_SHOWN", 2)
    for number in range(3):
        local.lake.files.write(f"staging/{number}/list", b"12345")
    age(local.lake)
    listed(local, refresh)
    assert local.artifacts["retention-not-saved"] == [
        {"kind": "staging", "what": "3 in all", "days": "", "size": "15 bytes"},
        {"kind": "staging", "what": "staging/0", "days": "8.0", "size": "5 bytes"},
        {"kind": "staging", "what": "staging/1", "days": "8.0", "size": "5 bytes"},
        {"kind": "", "what": "and 1 more", "days": "", "size": ""},
    ]


def test_unfinished_uploads_are_removed_on_s3(
    local: Local, store: StoppableStore, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = local.lake = store.new_lake()
    fs, bucket = lake.files.fs, lake.root.split("/")[2]
    for key in ("lake/a/part", "lake/b/part", "neighbour"):
        fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    write_runs(lake, 1, 2)
    lake.files.write("staging/dead/list", b"123")
    # This server has all uploads begun long ago.
    assert listed(local, refresh).amounts.keys() == {"upload"}
    later = Files.now
    monkeypatch.setattr(Files, "now", lambda files: later(files) + timedelta(days=9))
    found = listed(local, another())
    assert shown(local) == [
        ("staging", "staging/dead"),
        ("upload", "a/part"),
        ("upload", "b/part"),
        ("lake run", f"{RUN.format(1)}/_manifest-00000.json"),
    ]
    assert len(fs.list_multipart_uploads(bucket)) == 3
    for _ in range(2):
        assert remove_candidates.fn(local.lake, local.account, found).removed == found.amounts
    (left,) = fs.list_multipart_uploads(bucket)
    assert left["Key"] == "neighbour"
    assert lake.runs()["run_number"].to_list() == [2]
    assert not paths(lake, "staging/dead")


# ---- what cannot be read ----------------------------------------------------------------------


def loop(path: Path) -> None:
    """What no file system gives out: a link to itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path)


@pytest.mark.parametrize("odd", ["a folder", "a loop"])
def test_odd_pointer_keeps_no_old_run(local: Local, refresh: Refresh, odd: str) -> None:
    for campaign in "CD":
        write_run(local.lake, campaign, 1, CUSTOMERS)
        write_run(local.lake, campaign, 2, CUSTOMERS)
    age(local.lake)
    pointer = Path(local.lake.root, "messages/campaign_id=C/_latest.json")
    pointer.unlink()
    pointer.mkdir() if odd == "a folder" else loop(pointer)
    assert removed(local, refresh).removed["lake run"].count == 2


def test_campaign_whose_journals_cannot_be_listed_is_kept_alone(
    local: Local, refresh: Refresh
) -> None:
    for campaign in "CD":
        write_run(local.lake, campaign, 1, CUSTOMERS)
        write_run(local.lake, campaign, 2, CUSTOMERS)
        local.lake.files.write(f"quarantine/campaign_id={campaign}/old.parquet", b"rows")
    age(local.lake)
    loop(Path(local.lake.root, "refreshes/campaign_id=C"))
    found = removed(local, refresh, Ages(quarantine_days=7, runs_kept=1, journals_days=7))
    assert {kind: each.count for kind, each in found.removed.items()} == {
        "quarantine": 1,
        "lake run": 1,
    }
    assert local.lake.runs()["run_number"].to_list() == [1, 2, 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("00000001/00-claimed.json", b""),
        ("00000001/99-ended.json", b""),
        ("00000001/owner-0001.json", b'{"schema_version": 3}'),
        ("00000003/00-claimed.json", b"{}"),
    ],
)
def test_staging_that_may_be_of_an_unreadable_journal_is_kept(
    local: Local, refresh: Refresh, name: str, content: bytes
) -> None:
    files, lost, dead, planned = local.lake.files, another(), another(), another()
    begin_refresh(local.lake, "C", lost)
    begin_refresh(local.lake, "D", dead)
    History(files, "campaign_id=D").end(1, Ended(outcome="released"))
    files.write(f"journals/plan-refresh/{planned.id}-2/00-claimed.json", b"{}")
    for one in (lost, dead, planned):
        files.write(f"{one.staging}/accepted.parquet", b"a list")
    files.write(f"refreshes/campaign_id=C/{name}", content)
    age(local.lake)
    found = removed(local, refresh, Ages(journals_days=7))
    assert found.removed.keys() == {"staging", "journal"}
    assert files.list_names("staging") == [lost.id]
    assert name in "".join(paths(local.lake, "refreshes/campaign_id=C"))
    files.remove("refreshes/campaign_id=C")
    assert removed(local, another()).removed.keys() == {"staging"}
    assert files.list_names("staging") == []


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "killed before"])
def test_mark_on_a_reused_group_goes_with_the_journal_that_tells_it_is_over(
    company: Company, local: Local, refresh: Refresh, noted: bool
) -> None:
    account, files, workspace = local.account, local.lake.files, company.seeded.workspace_id
    group = find_or_create_group.fn(account, workspace, "Ours")
    number = begin_refresh(local.lake, "C", me := another())
    history = History(files, "campaign_id=C")
    over = me.model_copy(update={"journal": history.journal(number).folder})
    campaign = CampaignRef(
        campaign_id="C",
        name="C",
        workspace_id=workspace,
        previous_run=1,
        previous_group=None,
        previous_pages=1,
    )
    history.journal(number).create(Step.FOUND, campaign)
    if noted:
        reused = group.model_copy(update={"reused": True})
        history.journal(number).create(Step.GROUPED, reused)
    with company.client() as client:
        marked = UpdateGroup(
            customer_group_id=group.customer_group_id, description=over.marker(reused=True)
        )
        client.update_group(marked)
    history.end(number, Ended(outcome="released"))
    begin_refresh(local.lake, "C")
    age(local.lake)
    assert removed(local, refresh, Ages(journals_days=7)).removed["journal"].count == 1
    found = find_group.fn(account, workspace, "Ours", local.lake)
    assert (found and found.held_by, history.newest_number()) == (None, 2)


def test_journal_is_kept_when_changed_or_newest_since_listed_or_its_mark_stays(
    local: Local, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, folder = local.lake.files, "refreshes/campaign_id={}/00000001"
    for campaign in ("changed", "newest", "marked"):
        history = History(files, f"campaign_id={campaign}")
        for _ in range(2):
            history.end(begin_refresh(local.lake, campaign), Ended(outcome="released"))
    age(local.lake)
    found = listed(local, refresh, Ages(journals_days=7))
    assert found.amounts["journal"].count == 3
    files.write(f"{folder.format('changed')}/problem-0001.json", b"{}")
    files.remove("refreshes/campaign_id=newest/00000002")

    def unreachable(*_: object) -> None:
        raise ServerError("Nudgescribe answered 503.")

    monkeypatch.setattr("tasks.retention.files.release_held_group.fn", unreachable)
    assert remove_candidates.fn(local.lake, local.account, found).kept == {
        folder.format("changed"): CHANGED,
        folder.format("newest"): OPEN,
        folder.format("marked"): "Nudgescribe answered 503.",
    }


def test_what_the_store_does_not_let_go_is_kept_with_its_reason(
    local: Local, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("staging/held", "staging/dead"):
        local.lake.files.write(f"{folder}/list", b"123")
    age(local.lake)
    remove = local.lake.files.fs.rm

    def refuse(path: str, **options: Any) -> None:
        if path.endswith("held"):
            raise PermissionError(errno.EACCES, "x")
        remove(path, **options)

    monkeypatch.setattr(type(local.lake.files.fs), "rm", lambda fs, *a, **k: refuse(*a, **k))
    kept = removed(local, refresh).kept
    assert kept == {"staging/held": "The lake refuses staging/held: Permission denied."}
    assert local.lake.files.list_names("staging") == ["held"]
