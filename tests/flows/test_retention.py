"""What the retention shows and what it removes, as people start it."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed, Running, Suspended
from pydantic import ValidationError

from blocks.storage.files import DRAFT, Files
from flows.retention import RetentionOptions, lake_retention
from flows.run.flow_run import this_run
from tasks.journal.entries import Step
from tasks.journal.owners import this_process
from tasks.journal.refresh import Claimed, Refresh
from tasks.refresh.history import History
from tasks.refresh.standing import Ended
from tasks.retention.look import RunsDamaged
from tasks.retention.rules import OPEN, Ages
from tasks.retention.runs import NEEDED
from tasks.retention.sweep import Amount, RetentionResult, list_candidates, remove_candidates
from tests.conftest import Company, Save, Saved, customers
from tests.support.lakes import write_run

OLD = (datetime.now(UTC) - timedelta(days=8)).timestamp()


def age(root: Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in root.rglob(pattern):
            os.utime(file, (OLD, OLD))


def files(root: Path) -> set[str]:
    """The files of a lake but for what retention notes about itself."""
    found = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    return {
        path for path in found if not path.startswith(("journals/lake-retention/", "sync_runs/"))
    }


def retain(saved: Saved, *, dry_run: bool) -> RetentionResult:
    return lake_retention(saved.lake, saved.account, RetentionOptions(dry_run=dry_run))


def test_retention_lists_then_removes_what_is_old(company: Company, save: Save) -> None:
    saved = save(company, customers(1))
    lake, store = saved.lake, saved.lake.files
    write_run(lake, "C", 1, {"01": "a"})
    write_run(lake, "C", 1, {"01": "a", "02": "b"})
    write_run(lake, "C", 2, {"01": "a"})
    run = "messages/campaign_id=C/run_number=3"
    store.write("staging/dead/accepted.parquet", b"123")
    store.write(f"{run}/part-00000-00000-dead.parquet", b"")
    store.draft(f"{run}/x").file.write_bytes(b"half")
    age(saved.root, "*")
    store.write("staging/open/accepted.parquet", b"")
    store.write(f"{run}/part-00000-00000-open.parquet", b"")
    before = files(saved.root)

    shown = retain(saved, dry_run=True)
    assert files(saved.root) == before
    assert (shown.dry_run, shown.removed["staging"]) == (True, Amount(count=1, bytes=3))
    # Of the run that was written twice, the first manifest and its part; and the dead run's part.
    assert {kind: each.count for kind, each in shown.removed.items()} == {
        "staging": 1,
        "draft": 1,
        "leftover": 3,
    }
    gone = retain(saved, dry_run=False)
    assert gone == shown.model_copy(update={"dry_run": False})
    assert retain(saved, dry_run=False) == RetentionResult(dry_run=False, removed={})
    assert lake.read("C", 1).shape == (2, 2)
    assert lake.read("C").shape == (1, 2)
    assert store.list_names("staging") == ["open"]
    assert len(store.list_names(run)) == 1
    assert not list(saved.root.rglob(f"{DRAFT}*"))


def test_holdout_goes_with_its_run(company: Company, save: Save) -> None:
    saved = save(company, customers(1))
    store, holdouts = saved.lake.files, "holdouts/campaign_id=C"

    def held_out() -> set[str]:
        return {path.split("/")[2] for path in files(saved.root) if path.startswith(holdouts)}

    for number in (1, 2, 3):
        write_run(saved.lake, "C", number, {"01": "a"})
        store.write(f"{holdouts}/run_number={number}/customers.parquet", b"")
    store.write(f"{holdouts}/run_number=7/customers.parquet", b"")  # which is in review
    store.write(f"{holdouts}/notes.txt", b"")
    assert retain(saved, dry_run=False).removed == {}
    age(saved.root, "*")
    listed = retain(saved, dry_run=True)
    assert listed.removed == {"leftover": Amount(count=1, bytes=0)}
    assert retain(saved, dry_run=False).removed == listed.removed
    assert held_out() == {"run_number=1", "run_number=2", "run_number=3", "notes.txt"}
    options = RetentionOptions(runs_kept=1, dry_run=False)
    assert lake_retention(saved.lake, saved.account, options).removed.keys() == {"lake run"}
    assert held_out() == {"run_number=3", "notes.txt"}


def test_holdout_stays_while_its_refresh_is_open(company: Company, save: Save) -> None:
    saved = save(company, customers(1))
    path = "holdouts/campaign_id=C/run_number=2/customers.parquet"
    with get_client(sync_client=True) as client:
        begin_suspended(client, saved.lake.files)
    saved.lake.files.write(path, b"")
    age(saved.root, "*")
    assert retain(saved, dry_run=False).removed == {}
    assert saved.lake.files.exists(path)


def test_holdout_stays_if_its_run_has_come_since_it_was_listed(
    company: Company, save: Save
) -> None:
    saved = save(company, customers(1))
    path = "holdouts/campaign_id=C/run_number=2/customers.parquet"
    saved.lake.files.write(path, b"")
    age(saved.root, "*")

    @flow
    def exported_meanwhile() -> RetentionResult:
        listed = list_candidates(saved.lake, saved.account, Ages(), this_run())
        write_run(saved.lake, "C", 2, {"01": "a"})
        return remove_candidates(saved.lake, saved.account, listed)

    assert exported_meanwhile() == RetentionResult(dry_run=False, removed={}, kept={path: NEEDED})
    assert saved.lake.files.exists(path)


def test_retention_names_damaged_part_when_it_is_done(company: Company, save: Save) -> None:
    saved = save(company, customers(1))
    write_run(saved.lake, "C", 1, {"01": "a"})
    saved.lake.files.write("staging/dead/accepted.parquet", b"123")
    age(saved.root, "*")
    (part,) = saved.root.rglob("part-*")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(RunsDamaged, match=part.name):
        retain(saved, dry_run=False)
    assert saved.lake.files.list_names("staging") == []


@flow
def nothing() -> None: ...


def begin_suspended(client: SyncPrefectClient, files: Files) -> FlowRun:
    """Begins a refresh of campaign C with a list, and the suspended flow run that has it."""
    run = client.create_flow_run(nothing, state=Suspended())
    refresh = Refresh(id=str(run.id), started=datetime.now(UTC))
    claimed = Claimed(refresh=refresh, owner=this_process(refresh.id))
    History(files, "campaign_id=C").begin(1, claimed)
    files.write(f"{refresh.staging}/accepted.parquet", b"")
    return run


def test_retention_keeps_list_while_refresh_awaits_review(company: Company, save: Save) -> None:
    saved = save(company, customers(1))
    with get_client(sync_client=True) as client:
        run = begin_suspended(client, saved.lake.files)
        age(saved.root, "*")
        assert retain(saved, dry_run=False).removed == {}
        client.set_flow_run_state(run.id, Failed(), force=True)

        @flow
        def retried_meanwhile() -> RetentionResult:
            listed = list_candidates(saved.lake, saved.account, Ages(), this_run())
            client.set_flow_run_state(run.id, Running(), force=True)
            return remove_candidates(saved.lake, saved.account, listed)

        kept = retried_meanwhile()
        assert kept == RetentionResult(dry_run=False, removed={}, kept={f"staging/{run.id}": OPEN})
        client.set_flow_run_state(run.id, Failed(), force=True)
    assert retain(saved, dry_run=False).removed.keys() == {"staging"}
    problem = f"The list of refresh {run.id} was removed by lake-retention."
    ended = History(saved.lake.files, "campaign_id=C").journal(1).find(Step.ENDED, Ended)
    assert ended == Ended(outcome="released", problem=problem)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("00000001/00-claimed.json", '"schema_version": 2', '"schema_version": 3'),
        ("schema_version.json", '"schema_version": 2', '"schema_version": 3'),
        ("00000001/00-claimed.json", "{", ""),
    ],
    ids=["newer entry", "newer fence", "damaged entry"],
)
def test_retention_keeps_list_of_suspended_refresh_whose_journal_it_cannot_read(
    company: Company, save: Save, name: str, old: str, new: str
) -> None:
    saved = save(company, customers(1))
    store = saved.lake.files
    with get_client(sync_client=True) as client:
        run = begin_suspended(client, store)
    path = f"refreshes/campaign_id=C/{name}"
    store.write(path, store.read(path).decode().replace(old, new).encode())
    age(saved.root, "*")
    assert retain(saved, dry_run=False).removed == {}
    assert store.list_names("staging") == [str(run.id)]


def test_retention_refuses_ages_below_one_day() -> None:
    for name in RetentionOptions.model_fields.keys() - {"dry_run"}:
        with pytest.raises(ValidationError, match="greater than or equal to 1"):
            RetentionOptions.model_validate({name: 0})
