"""Customers who are erased are nowhere afterwards, and do not come back."""

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any, cast
from uuid import UUID

import httpx
import polars as pl
import pyarrow.parquet as parquet
import pytest
from deltalake import DeltaTable
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_runs import resume_flow_run
from prefect.states import Suspended
from pydantic import SecretStr

from blocks import DataLake, FileCrm
from blocks.crm import SourceError
from blocks.secrets import SecretUnusable
from blocks.storage.manifest import run_folder
from blocks.storage.reader import ManifestDamaged
from blocks.storage.tombstones import (
    TOMBSTONES,
    ErasureKeyWrong,
    TombstonesDamaged,
    write_tombstones,
)
from flows import erase
from flows.customers import sync_customers
from flows.erase import erase_customers
from flows.export import export_messages
from flows.options import ExportOptions, RefreshOptions
from flows.plan import plan_refresh
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from nudgescribe import contract
from nudgescribe.errors import NudgeflowError
from tasks.customers.guardrails import Guardrails
from tasks.erasure.listed import ErasureEmpty
from tasks.erasure.report import ErasureResult
from tasks.journal.entries import Journal, Step
from tasks.journal.flow_runs import FlowRunEnded
from tasks.journal.owners import this_process
from tasks.journal.refresh import Claimed, Refresh
from tasks.refresh.history import History
from tasks.refresh.report import RefreshResult
from tests.conftest import Company, Save, Saved, Through, customers
from tests.support import decoding
from tests.support.artifacts import all_artifacts
from tests.support.deployed import (
    Deployed,
    changes,
    deployed,
    flow_run_of,
    retry,
    state_of,
    work,
)
from tests.support.forks import kill_at
from tests.support.response_tamperer import Change, Changed, ResponseTamperer
from tests.test_documents import code, document

__all__ = ["deployed"]

ERASED = [f"ERASE-ME-{number}" for number in range(6)]
NAME = "Xanthippe-"
REJECTED = ERASED[0]
HIDDEN = "env:NUDGEFLOW_TEST_ERASURE_KEY"


def listed(*, with_erased: bool = True) -> pl.DataFrame:
    """A list in which some are to be erased, and one of these breaks a rule."""
    frame = customers(60)
    if not with_erased:
        return frame.slice(len(ERASED))
    rows = range(len(ERASED))
    ids = pl.Series([*ERASED, *frame["customer_id"][len(ERASED) :]])
    names = pl.Series([f"{NAME}{row}" for row in rows] + [*frame["first_name"][len(ERASED) :]])
    frame = frame.with_columns(ids.alias("customer_id"), names.alias("first_name"))
    bad = pl.when(pl.col("customer_id") == REJECTED).then(pl.lit("many"))
    return frame.with_columns(bad.otherwise(pl.col("visits")).alias("visits"))


@dataclass
class Scenario:
    company: Company
    saved: Saved
    block: FileCrm
    file: Path

    @property
    def campaign(self) -> str:
        return self.company.seeded.campaign_id

    @property
    def lake(self) -> DataLake:
        return self.saved.lake

    def refresh(self, *, return_state: bool = False, **options: Any) -> Any:
        given = RefreshOptions(guardrails=Guardrails(max_shrink=1, max_growth=9), **options)
        return campaign_refresh(
            self.campaign,
            **self.saved.blocks,
            options=given,
            return_state=cast(Any, return_state),
        )

    def parameters(self) -> dict[str, Any]:
        references = self.saved.references
        return {**references, "crm": self.block.to_reference()}

    def erase(self) -> Any:
        blocks = {"account": self.saved.account, "lake": self.lake, "crm": self.block}
        return erase_customers(**blocks, return_state=True)

    def export(self, **options: Any) -> Any:
        given = ExportOptions(**options)
        return export_messages(
            self.campaign, self.saved.account, self.lake, run="all", options=given
        )

    def save_lake(self, **fields: Any) -> None:
        """The lake's block with other fields than before."""
        before = {"root": str(self.saved.root), "erasure_key": HIDDEN}
        self.saved.lake = DataLake.model_validate({**before, **fields})
        self.saved.lake.save(self.saved.name, overwrite=True)

    def rows(self, run_number: int) -> int:
        """The rows of a run in the lake, whose files are checked."""
        read = self.lake.read(self.campaign, run_number, "polars", verify=True)
        assert isinstance(read, pl.DataFrame)
        return read.height

    def found(self) -> set[str]:
        """The files that hold an identifier or a name of those to erase."""
        return {
            path
            for path, value in decoding.values(self.saved.root)
            if NAME in value or any(id_ in value for id_ in ERASED)
        }

    def described(self) -> dict[str, dict[bytes, bytes] | None]:
        """What the files of tables tell of themselves, such as a holdout the hash of its key."""
        files = [file for name in TABLES for file in self.saved.root.glob(f"{name}/**/*.parquet")]
        names = {file: re.sub(r"-\d{5}\.", ".", str(file)) for file in files}
        return {name: parquet.read_metadata(file).metadata for file, name in names.items()}

    def in_groups(self) -> set[str]:
        with self.company.client() as client:
            workspace = self.company.seeded.workspace_id
            return {
                id_
                for group in client.list_groups(workspace)
                for page in client.customer_ids(workspace, group.customer_group_id)
                for id_ in page
            }


@pytest.fixture
def scenario(
    reviewed_company: Company, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scenario:
    monkeypatch.setenv("NUDGEFLOW_TEST_ERASURE_KEY", "kept for good")
    monkeypatch.setenv("NUDGEFLOW_TEST_HOLDOUT_KEY", "holdout")
    saved = save(reviewed_company, listed())
    file = tmp_path / "erase.csv"
    pl.DataFrame({"customer_id": [*ERASED, "stranger"], "why": "asked"}).write_csv(file)
    block = FileCrm(path=str(file))
    block.save(f"{saved.name}-erase")
    scenario = Scenario(reviewed_company, saved, block, file)
    scenario.save_lake()
    return scenario


TABLES = ["quarantine", "holdouts", "segments", "sync_changes", "handover"]
FORMATS = ["parquet", "csv", "csv.zst", "delta"]
HOLDOUT = {"share": 0.4, "key": "env:NUDGEFLOW_TEST_HOLDOUT_KEY"}


@pytest.mark.parametrize("file_format", FORMATS)
def test_erased_are_in_no_file_and_do_not_come_back(scenario: Scenario, file_format: str) -> None:
    scenario.save_lake(format=file_format)
    scenario.export()
    hand_over = "parquet" if file_format == "parquet" else "csv"
    scenario.refresh(holdout=HOLDOUT, hand_over=hand_over)
    scenario.refresh()
    plan_refresh(scenario.campaign, **scenario.saved.blocks)
    kinds = {path.split("/")[0] for path in scenario.found()}
    assert kinds == {"messages", *TABLES}
    rows = scenario.lake.runs()["rows"].tolist()
    described = scenario.described()
    assert described

    state = scenario.erase()
    assert state.is_completed(), state.message
    result: ErasureResult = state.result()
    assert scenario.found() == set()
    assert scenario.described() == described
    assert not scenario.in_groups() & {*ERASED}
    accepted = len(ERASED) - 1
    assert result.customers == len(ERASED) + 1
    assert (result.in_runs.runs, result.in_groups.groups) == (2, 2)
    assert result.in_runs.rows == result.in_groups.customers
    left = scenario.lake.runs()["rows"].tolist()
    assert left[0] == rows[0]
    assert left[2] == rows[2] - accepted
    for number, count in zip((1, 2, 3), left, strict=True):
        assert scenario.rows(number) == count
        assert scenario.lake.members(scenario.campaign, number).height == count

    if file_format == "delta":
        table: Any = DeltaTable(str(scenario.saved.root / "messages"))
        assert table.to_pyarrow_table().num_rows == sum(left)
    scenario.export()
    assert scenario.lake.runs()["rows"].tolist() == left
    scenario.export(rewrite=True)
    assert scenario.found() == set()
    assert scenario.lake.runs()["rows"].tolist() == left
    # The CRM has them still, but for the one who would be rejected.
    listed().filter(pl.col("customer_id") != REJECTED).write_csv(scenario.saved.crm_file)
    assert scenario.refresh().rows == left[2]
    assert scenario.found() == set()
    assert not scenario.in_groups() & {*ERASED}


def without_key(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.save_lake(erasure_key=None)


def key_not_there(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUDGEFLOW_TEST_ERASURE_KEY")


def another_key(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tombstones(scenario.lake.files, b"another one", "before", [pl.Series(["somebody"])])


def list_is_gone(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.file.unlink()


def list_is_empty(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"customer_id": []}, schema={"customer_id": pl.String}).write_csv(scenario.file)


def list_is_blank(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"customer_id": [" ", ""], "why": "asked"}).write_csv(scenario.file)


def list_lacks_the_column(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"id": ERASED, "why": "asked"}).write_csv(scenario.file)


def a_manifest_is_damaged(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    (manifest,) = scenario.saved.root.glob("messages/*/*/_manifest-00000.json")
    manifest.write_bytes(b"{")


BAD: list[tuple[Callable[[Scenario, pytest.MonkeyPatch], None], type[NudgeflowError]]] = [
    (without_key, ErasureKeyWrong),
    (key_not_there, SecretUnusable),
    (another_key, ErasureKeyWrong),
    (list_is_gone, SourceError),
    (list_is_empty, ErasureEmpty),
    (list_is_blank, ErasureEmpty),
    (list_lacks_the_column, SourceError),
    (a_manifest_is_damaged, ManifestDamaged),
]


def content(root: Path) -> dict[str, bytes]:
    """What the lake holds but for what an erasure notes about itself."""
    files = {str(file.relative_to(root)): file for file in root.rglob("*") if file.is_file()}
    own = ("journals/erase-customers/", "sync_runs/")
    return {
        path: file.read_bytes()
        for path, file in files.items()
        if not path.startswith(own) and file.name != "to-erase.parquet"
    }


def test_bad_input_is_answered_before_anything_is_changed(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.export()
    lake, file = scenario.saved.root, scenario.file
    spare = scenario.saved.root.with_name("spare")
    listed_bytes = file.read_bytes()
    shutil.copytree(lake, spare)
    for breaks, kind in BAD:
        with monkeypatch.context() as patched:
            breaks(scenario, patched)
            before = content(lake)
            state = scenario.erase()
            with pytest.raises(kind) as told:
                state.result()
            assert content(lake) == before, breaks.__name__
            if breaks in (without_key, key_not_there, another_key):
                assert "key" in str(told.value)
        shutil.rmtree(lake)
        shutil.copytree(spare, lake)
        file.write_bytes(listed_bytes)
        scenario.save_lake()
    assert changes(scenario.company) == []


def test_everybody_can_be_erased(scenario: Scenario) -> None:
    scenario.refresh()
    listed().select("customer_id").write_csv(scenario.file)
    state = scenario.erase()
    assert state.is_completed(), state.message
    manifest = scenario.lake.manifest(scenario.campaign, 2)
    assert manifest
    assert (manifest.rows, manifest.parts, manifest.erased) == (0, [], 59)
    assert scenario.rows(2) == 0
    assert scenario.in_groups() & {*listed()["customer_id"]} == set()


def test_without_the_key_nothing_is_exported_and_nothing_published(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_key(scenario, monkeypatch)
    before = content(scenario.saved.root)
    with pytest.raises(ErasureKeyWrong, match="another key"):
        scenario.export()
    scenario.save_lake(erasure_key=None)
    with pytest.raises(ErasureKeyWrong, match="no erasure_key"):
        scenario.refresh()
    assert changes(scenario.company) == []
    kept = {path: each for path, each in content(scenario.saved.root).items() if path in before}
    assert kept == before
    assert not scenario.saved.root.joinpath("messages").exists()


BEFORE_RUNS = [
    ("flows.erase", "read_list"),
    ("tasks.erasure.listed", "write_tombstones"),
    ("flows.erase", "erase_from_staging"),
    ("tasks.erasure.groups", "_delete"),
    ("tasks.erasure.tables", "read_batches"),
]
RUNS = [
    ("flows.erase", "erase_from_runs"),
    ("tasks.erasure.runs", "carry_segments"),
    ("tasks.erasure.runs", "manifest_name"),
    ("tasks.erasure.runs", "_finish"),
    ("tasks.erasure.runs", "update_pointer"),
    ("tasks.erasure.runs", "remove_older_segments"),
    ("tasks.erasure.runs", "_remove_orphans"),
]
AFTER_RUNS = [("flows.erase", "report_erasure"), ("flows.erase", "announce")]


def begin(parameters: dict[str, Any]) -> None:
    erase_customers(**parameters)


def go_on(run: UUID) -> None:
    work(erase_customers, run)


@pytest.mark.parametrize(
    ("file_format", "steps"),
    [("parquet", [*BEFORE_RUNS, *RUNS, *AFTER_RUNS]), ("delta", RUNS)],
    ids=["parquet", "delta"],
)
def test_killed_at_each_step_it_completes(
    scenario: Scenario, file_format: str, steps: list[tuple[str, str]]
) -> None:
    scenario.save_lake(format=file_format)
    scenario.refresh()
    first, *others = steps
    kill_at(*first, begin, scenario.parameters())
    run = flow_run_of(scenario.saved).id
    for step in others:
        retry(run)
        kill_at(*step, go_on, run)
        # A run can be read at any time.
        assert scenario.rows(2) in (59, 54), step
    retry(run)
    state = work(erase_customers, run)
    assert state.is_completed(), state.message
    assert scenario.found() == set()
    assert not scenario.in_groups() & {*ERASED}
    manifest = scenario.lake.manifest(scenario.campaign, 2)
    assert manifest
    assert (manifest.rows, manifest.erased, manifest.generation) == (54, 5, 1)
    assert scenario.lake.members(scenario.campaign).height == 54
    folder = scenario.saved.root / run_folder(scenario.campaign, 2)
    assert {file.name for file in folder.iterdir()} == {
        "_manifest-00001.json",
        *(part.name for part in manifest.parts),
    }
    assert [*scenario.saved.root.glob("staging/*")] == []
    row = scenario.lake.sync_runs().filter(pl.col("flow") == "erase-customers")
    assert row["outcome"].to_list() == ["completed"]


@pytest.fixture
def reviewing(scenario: Scenario, company: Company, save: Save) -> Scenario:
    """A company whose messages wait for people."""
    saved = save(company, listed())
    waiting = Scenario(company, saved, scenario.block, scenario.file)
    waiting.save_lake()
    return waiting


def publish(scenario: Scenario) -> RefreshResult:
    scenario.company.sandbox.approve(scenario.campaign).raise_for_status()
    result = publish_campaign(scenario.campaign, scenario.saved.account, scenario.lake)
    assert isinstance(result, RefreshResult)
    return result


def test_refresh_that_was_stopped_is_finished_without_its_list(reviewing: Scenario) -> None:
    state = reviewing.refresh(review="stop", return_state=True)
    assert state.name == "Stopped", state.message
    erased = reviewing.erase()
    assert erased.is_completed(), erased.message
    assert erased.result().staged == 1
    assert erased.result().in_groups.customers == 5
    assert reviewing.found() == set()
    assert publish(reviewing).rows == 54
    assert reviewing.found() == set()


def test_refresh_in_review_is_not_disturbed(reviewing: Scenario, deployed: Deployed) -> None:
    run = deployed.refresh(reviewing.company, reviewing.saved, review="suspend")
    assert deployed.work(run).name == "Suspended", state_of(run).message
    before, held = content(reviewing.saved.root), reviewing.in_groups()
    state = reviewing.erase()
    assert state.name == "ErasureBlocked"
    assert f"campaign_id={reviewing.campaign}" in state.message
    assert content(reviewing.saved.root) == before
    assert reviewing.in_groups() == held
    # Even if the tombstones are there before it has ended, it is finished.
    erasure = flow_run_of(reviewing.saved).id
    write_tombstones(reviewing.lake.files, b"kept for good", "meanwhile", [pl.Series(ERASED)])
    reviewing.company.sandbox.approve(reviewing.campaign).raise_for_status()
    resume_flow_run(run, run_input={})
    assert deployed.work(run).name == "Completed", state_of(run).message
    assert reviewing.rows(2) == 54
    retry(erasure)
    done = work(erase_customers, erasure)
    assert done.is_completed(), done.message
    assert reviewing.found() == set()
    assert not reviewing.in_groups() & {*ERASED}


class Keeping(ResponseTamperer):
    """A service that lets no customer go."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE" and request.url.path == contract.CUSTOMERS:
            return httpx.Response(400, json={"message": "The group is fixed."})
        return super().handle_request(request)


def test_groups_that_refuse_are_told_and_tried_again(
    scenario: Scenario, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.refresh()
    folder = scenario.saved.root / run_folder(scenario.campaign, 2)
    # What killed flow runs have left: a part of no run, and a file that was never published.
    (part,) = folder.glob("part-*")
    orphan = (
        scenario.saved.root / "messages/campaign_id=C/run_number=7/part-00000-00000-dead.parquet"
    )
    orphan.parent.mkdir(parents=True)
    shutil.copy(part, orphan)
    shutil.copy(part, folder / ".draft-dead")
    with monkeypatch.context():
        through(Keeping())
        state = scenario.erase()
    monkeypatch.undo()
    monkeypatch.setenv("NUDGEFLOW_TEST_ERASURE_KEY", "kept for good")
    assert state.name == "ErasureIncomplete"
    assert "2 customer groups" in state.message
    assert not orphan.exists()
    assert not (folder / ".draft-dead").exists()
    assert scenario.in_groups() >= {*ERASED} - {REJECTED}
    run = flow_run_of(scenario.saved).id
    (staged,) = {path.split("/")[0] for path in scenario.found()}
    assert staged == "staging"
    retry(run)
    assert work(erase_customers, run).is_completed()
    assert not scenario.in_groups() & {*ERASED}
    assert scenario.found() == set()


def test_report_and_log_have_numbers_only_and_hashed_identifiers_are_found(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    # As the document tells people to give the lake a key.
    name = scenario.saved.name
    told_so = dedent(code("python", document("erasure"))[0])
    exec(told_so.replace('"main"', f'"{name}"').replace("erasure-key", f"{name}-key"), {})
    lake = DataLake.load(name)
    assert isinstance(lake, DataLake)
    lake.identifier_key = SecretStr("another key")
    lake.save(name, overwrite=True)
    scenario.saved.lake = lake
    scenario.refresh()
    hidden = {*scenario.lake.show_identifiers(pl.Series(ERASED))}
    (quarantine,) = scenario.saved.root.glob("quarantine/*/*.parquet")
    assert {*pl.read_parquet(quarantine)["identifier"]} <= hidden
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    state = scenario.erase()
    assert state.is_completed(), state.message
    assert scenario.found() == set()
    assert not [path for path, value in decoding.values(scenario.saved.root) if value in hidden]
    key = f"erasure-{scenario.saved.name}"
    (page,) = [str(one.data) for one in all_artifacts() if one.key == key]
    assert "| to erase | 7 customers |" in page
    assert "| taken out of runs | 5 rows, of 1 run |" in page
    told = page + state.result().model_dump_json() + caplog.text
    assert "7 customers are to be erased" in told
    assert not [id_ for id_ in [*ERASED, NAME] if id_ in told]


@flow
def nothing() -> None: ...


def begun(scenario: Scenario, folder: str) -> Journal:
    """The journal of a flow run that is suspended: of a refresh, or of another flow."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(nothing, state=Suspended())
    refresh = Refresh(id=str(run.id), started=datetime.now(UTC))
    claimed = Claimed(refresh=refresh, owner=this_process(refresh.id))
    files = scenario.lake.files
    if folder.startswith("refreshes"):
        History(files, folder.partition("/")[2]).begin(1, claimed)
        return History(files, folder.partition("/")[2]).journal(1)
    journal = Journal(files, f"{folder}/{run.id}")
    journal.create(Step.CLAIMED, claimed)
    return journal


def test_flow_runs_that_may_read_customers_are_waited_for(scenario: Scenario) -> None:
    export, refresh = (
        begun(scenario, folder)
        for folder in ("journals/export-messages", "refreshes/campaign_id=C")
    )
    damaged = "journals/sync-customers/0b1c2d3e"
    scenario.lake.files.write(f"{damaged}/{Step.CLAIMED}.json", b"{")
    state = scenario.erase()
    assert state.name == "ErasureBlocked"
    for one in ("campaign_id=C", export.folder, damaged):
        assert one in state.message
    assert not scenario.saved.root.joinpath(TOMBSTONES).exists()

    # A refresh whose list is validated, and has none of them, is in nobody's way; its drafts are.
    refresh.create(Step.VALIDATED, FlowRunEnded())
    export.create(Step.ENDED, FlowRunEnded())
    scenario.lake.files.remove(damaged)
    draft = scenario.lake.files.draft("messages/campaign_id=C/run_number=1/part-1")
    draft.file.write_bytes(b"half")
    run = flow_run_of(scenario.saved).id
    retry(run)
    state = work(erase_customers, run)
    assert (state.name, "is being written" in str(state.message)) == ("ErasureBlocked", True)
    old = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
    os.utime(draft.file, (old, old))
    retry(run)
    assert work(erase_customers, run).is_completed()
    assert not draft.file.exists()


@pytest.mark.parametrize(
    ("path", "broken", "what"),
    [
        (contract.GROUPS, lambda body: body["groups"][0].pop("name"), "A group of workspace"),
        (contract.CAMPAIGNS, lambda body: body["workspaces"].append({}), "A workspace"),
    ],
    ids=["group", "workspace"],
)
def test_group_that_cannot_be_read_stops_the_erasure(
    scenario: Scenario, through: Through, path: str, broken: Change, what: str
) -> None:
    through(Changed(path, broken))
    state = scenario.erase()
    assert state.is_failed()
    assert f"ContractMismatch: {what}" in str(state.message)
    through(ResponseTamperer())
    run = flow_run_of(scenario.saved).id
    retry(run)
    assert work(erase_customers, run).is_completed()


def test_what_cannot_be_read_is_named(scenario: Scenario) -> None:
    files = scenario.lake.files
    # Damaged staging of a flow run that is over, and a part of no run: nobody can need them.
    files.write("staging/dead/accepted.parquet", b"cut off")
    files.write("messages/campaign_id=C/run_number=1/part-00000-00000-dead.parquet", b"cut off")
    files.write("quarantine/campaign_id=C/1.parquet", b"cut off")
    state = scenario.erase()
    assert "TableDamaged" in str(state.message)
    assert "quarantine/campaign_id=C/1.parquet" in str(state.message)
    files.remove("quarantine")
    run = flow_run_of(scenario.saved).id
    retry(run)
    assert work(erase_customers, run).is_completed()
    assert not [*scenario.saved.root.glob("staging/*"), *scenario.saved.root.glob("messages/*/*/*")]

    files.write("quarantine/campaign_id=C/1.parquet", b"cut off")
    assert scenario.erase().is_failed()
    files.remove("staging")
    run = flow_run_of(scenario.saved).id
    retry(run)
    assert "ErasureListLost" in str(work(erase_customers, run).message)

    (tombstones, *_) = (f"{TOMBSTONES}/{name}" for name in files.list_names(TOMBSTONES))
    for path in (f"{TOMBSTONES}/key.json", tombstones):
        kept = files.read(path)
        files.write(path, b"cut off")
        with pytest.raises(TombstonesDamaged, match=path):
            scenario.export()
        files.write(path, kept)
    scenario.export()


def test_erased_customers_of_later_lists_are_named_nowhere(scenario: Scenario) -> None:
    scenario.refresh()
    assert scenario.erase().is_completed()
    # The CRM has them still: one breaks a rule, one is there twice, all are not to be written to.
    pl.concat([listed(), listed().slice(1, 1)]).write_csv(scenario.saved.crm_file)
    refreshed = scenario.refresh(suppress=scenario.block, strict=True)
    assert (refreshed.rows, refreshed.rejected, refreshed.suppressed) == (54, 0, 0)
    assert scenario.found() == set()


def test_customers_who_leave_a_group_after_their_erasure_are_named_nowhere(
    scenario: Scenario, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.refresh()
    with monkeypatch.context():
        through(Keeping())
        assert scenario.erase().name == "ErasureIncomplete"
    monkeypatch.undo()
    monkeypatch.setenv("NUDGEFLOW_TEST_ERASURE_KEY", "kept for good")
    run = flow_run_of(scenario.saved).id
    listed(with_erased=False).write_csv(scenario.saved.crm_file)
    with scenario.company.client() as client:
        workspace = scenario.company.seeded.workspace_id
        (*_, group) = client.list_groups(workspace)
    blocks = scenario.saved.blocks
    synced: Any = sync_customers(workspace, group.name, **blocks)
    assert synced.removed > 0
    removed = scenario.lake.sync_changes().filter(pl.col("change") == "removed")
    assert not {*removed["customer_id"]} & {*ERASED}
    retry(run)
    assert work(erase_customers, run).is_completed()
    assert scenario.found() == set()
    assert not scenario.in_groups() & {*ERASED}


def test_flow_runs_that_begin_meanwhile_write_nothing_of_the_erased(
    scenario: Scenario, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.refresh()
    erase_from_runs = erase.erase_from_runs

    def others_first(*arguments: Any) -> Any:
        # The tables are done, the runs are not: what lies beside them is made of them as they were.
        scenario.lake.files.remove("segments")
        scenario.export(hand_over="csv")
        assert scenario.lake.members(scenario.campaign, 2).height == 54
        return erase_from_runs(*arguments)

    with monkeypatch.context() as patched:
        through(Keeping())
        patched.setattr(erase, "erase_from_runs", others_first)
        assert scenario.erase().name == "ErasureIncomplete"
    kinds = {path.split("/")[0] for path in scenario.found()}
    assert kinds == {"staging"}
    assert [*scenario.saved.root.glob("handover/*/*/*.csv")]


def test_identifiers_that_no_service_takes_are_in_nobodys_way(scenario: Scenario) -> None:
    scenario.refresh()
    odd = ["with a\0NUL", "x" * 5000, "line\nbreak", "mailto:a@b.example", "'; --", "%00", "é/ß"]
    pl.DataFrame({"customer_id": [*ERASED, *odd]}).write_csv(scenario.file)
    state = scenario.erase()
    assert state.is_completed(), state.message
    assert scenario.found() == set()
    assert not scenario.in_groups() & {*ERASED}


def test_delta_table_of_runs_written_in_another_format_since_can_be_read(
    scenario: Scenario,
) -> None:
    scenario.save_lake(format="delta")
    scenario.refresh()
    scenario.save_lake(format="parquet")
    scenario.export(rewrite=True)
    assert scenario.erase().is_completed()
    assert scenario.found() == set()
    table: Any = DeltaTable(str(scenario.saved.root / "messages"))
    assert table.to_pyarrow_table().num_rows == 0
    assert scenario.rows(2) == 54
