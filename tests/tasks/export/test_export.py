"""Which runs are exported; fetching an export that grows, changes or lies; proving what is in the
lake.
"""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import get_args

import polars as pl
import pytest

from benchmarks.pages_server import CAMPAIGN, answers
from blocks.storage.manifest import LATEST, Format, Latest, manifest_name
from nudgescribe import contract, rfc4180
from nudgescribe.identifiers import hash_ids
from tasks.campaigns import Refresh
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export import download
from tasks.export import run as tasks
from tasks.export.download import PageBroken
from tasks.export.ledger import Ledger
from tasks.export.run import ExportIncomplete, RunTaken
from tasks.refresh.reconcile import NotReconciled, reconcile
from tests.conftest import Company
from tests.support import exports
from tests.support.exports import Export, Fault, another, page
from tests.support.http_server import Reply, serving
from tests.support.lakes import write_run
from tests.tasks.conftest import Local, new_refresh
from tests.tasks.export.conftest import FOLDER, Exporter, Exporting, export_ref

IDS = ["01", "02", "03", "04"]
WHOLE = [page(["01", "02"]), page(["03", "04"])]
EARLY = [page(["01"]), page(["03", "04"])]
OLD = [page(["01", "09"]), page(["10", "11", "12"])]


def another_refresh(one: Exporting) -> Exporting:
    """The same, of a flow run of its own."""
    one.refresh = Refresh(id="another", started=one.refresh.started)
    return one


@pytest.mark.parametrize(("manifest", "pages"), [(None, 2), (b"", None), (b"{}", None)])
def test_previous_run_whose_manifest_is_damaged_stops_no_other(
    company: Company, local: Local, manifest: bytes | None, pages: int | None
) -> None:
    lake = local.lake
    write_run(lake, CAMPAIGN, 1, {"1": "a"}, {"2": "b"})
    if manifest is not None:
        folder = Path(lake.root, f"messages/campaign_id={CAMPAIGN}/run_number=1")
        (folder / "_manifest-00000.json").write_bytes(manifest)
    export = Export([])
    export.answers = answers(2, 2)
    (workspace,) = export.answers[contract.CAMPAIGNS]["workspaces"]
    workspace["campaigns"][0]["current_run"] = 2
    (first,) = export.answers[contract.RERUN_HISTORY]["runs"]
    export.answers[contract.RERUN_HISTORY]["runs"] = [first, first | {"run_number": 2}]
    with serving(export):
        account = company.account(base_url=export.url)
        (run,) = tasks.find_runs.fn(account, CAMPAIGN, lake, "latest", True)
    assert (run.run_number, run.previous_run, run.previous_pages) == (2, 1, pages)


@pytest.mark.parametrize(
    ("file_format", "states"),
    [
        *((one, ([], WHOLE[:1], WHOLE[:1], WHOLE)) for one in get_args(Format)),
        pytest.param("parquet", (EARLY, EARLY, WHOLE), id="growing page"),
        pytest.param("parquet", (EARLY[:1], EARLY[:1], [page(IDS)]), id="growing last page"),
        pytest.param("parquet", (OLD, OLD, WHOLE), id="earlier export"),
    ],
)
def test_export_completes_when_its_pages_add_up(
    exporting: Exporter, file_format: Format, states: tuple[list[bytes], ...]
) -> None:
    one = exporting(*states, rows=4)
    one.lake.format = file_format
    done = one.finish()
    assert done.rows == 4
    assert one.ids() == IDS
    manifest = one.lake.manifest("C", 2)
    assert manifest is not None
    heights = [rfc4180.read(each).height for each in states[-1]]
    assert [(each.page, each.rows) for each in manifest.pages] == [*enumerate(heights)]
    assert manifest.bytes == done.bytes > 0


def test_export_with_fewer_pages_is_fetched_again(
    exporting: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 1)  # a part for each page
    old = [page(["01"]), page(["02"]), page(["03"])]
    one = exporting(old, old, WHOLE, rows=4)
    one.fetch(one.plan())  # a first try, killed
    one.finish()
    assert one.ids() == IDS
    assert one.problems == ["The export has 2 pages now, 1 fewer than before."]


def test_pages_of_previous_run_are_not_taken(exporting: Exporter) -> None:
    one = exporting(WHOLE, rows=4, moves=5)
    assert one.plan().pages == 2
    assert one.service.calls["moves"] == 7
    never = exporting(WHOLE, rows=4, moves=exports.FOREVER)
    with pytest.raises(ExportIncomplete, match="or still those of run 1, after 1 minutes"):
        never.plan()


def written(when: datetime) -> Fault:
    """Downloaded from a store that tells when it was written."""
    told = {"last-modified": format_datetime(when, usegmt=True)}
    return lambda content: Reply(200, content, told)


@pytest.mark.parametrize("known", [2, None], ids=["as many pages", "unknown to the lake"])
@pytest.mark.parametrize("old", [0, 1, 2, 3, None])
def test_export_is_taken_by_its_age_only_when_every_page_is_new(
    exporting: Exporter, known: int | None, old: int | None
) -> None:
    never_moved = exports.FOREVER if known else 0
    one = exporting([page([each]) for each in IDS], rows=4, moves=never_moved)
    published = datetime(2026, 11, 21, 6, tzinfo=UTC)
    one.run = one.run.model_copy(update={"previous_pages": known, "published_at": published})
    for number in range(4):
        when = published - timedelta(minutes=1) if number == old else published
        one.service.page_faults[number] = [written(when)] * 200
    if old is None:
        assert one.plan().pages == 4
    else:
        with pytest.raises(ExportIncomplete, match="or still those of run 1"):
            one.plan()


def test_archived_page_proves_the_export_when_ages_are_unknown(exporting: Exporter) -> None:
    one = exporting(WHOLE, rows=4, moves=5)
    one.run = one.run.model_copy(update={"previous_pages": None})
    assert one.plan().pages == 2
    assert one.service.calls["moves"] == 7


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        pytest.param(another(page(["01", "02"])[:33]), None, id="torn in a row"),
        pytest.param(another(b""), None, id="nothing at all"),
        pytest.param(exports.without_length, None, id="without a length"),
        pytest.param(another(page(["01"])), "3 rows, not 4; in doubt: page 0, 1", id="short"),
        pytest.param(another(page(["03", "04"])), "more than once .* page 0, 1", id="repeated"),
        pytest.param(another(page(["02", "03"])), "more than once .* page 0, 1", id="re-ordered"),
        pytest.param(another(page(["01", "02"], ["customer_id", "x"])), None, id="other columns"),
        pytest.param(exports.broken_off, None, id="broken off"),
        pytest.param(exports.refused, None, id="an old link"),
    ],
)
def test_broken_page_is_fetched_again(
    exporting: Exporter, fault: exports.Fault, problem: str | None
) -> None:
    one = exporting(WHOLE, rows=4)
    one.service.page_faults[0] = [fault]
    one.finish()
    assert one.ids() == IDS
    assert one.service.calls["page 0"] == 2
    assert len(one.problems) == (problem is not None)
    assert re.search(problem or "", "".join(one.problems))


@pytest.mark.parametrize("size", [download.READ_AT_ONCE, 0], ids=["small", "large"])
def test_page_is_named_when_it_stays_broken(
    exporting: Exporter, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(download, "READ_AT_ONCE", size)
    broken = b'customer_id,message\r\n03,"never ends'
    one = exporting([page(["01", "02"]), broken, page(["4"])], rows=4)
    with pytest.raises(PageBroken, match="Page 1 of run 2 of campaign C is broken: .* cut off"):
        one.fetched()
    assert one.service.calls["page 1"] == download.TRIES
    assert one.lake.manifest("C", 2) is None
    assert one.lake.files.list_names(FOLDER) == []


@pytest.mark.parametrize("file_format", get_args(Format))
def test_large_page_is_read_in_blocks(
    exporting: Exporter, monkeypatch: pytest.MonkeyPatch, file_format: Format
) -> None:
    monkeypatch.setattr(download, "READ_AT_ONCE", 0)
    monkeypatch.setattr(rfc4180, "PIECE_BYTES", 16)
    one = exporting(WHOLE, rows=4)
    one.lake.format = file_format
    one.finish()
    assert one.ids() == IDS
    assert one.lake.read("C", kind="polars")["message"].to_list() == [f"to {each}" for each in IDS]


def test_notes_of_an_export_are_those_of_its_customers(exporting: Exporter) -> None:
    one = exporting(WHOLE, rows=4)
    one.service.page_faults[0] = [another(page(["01"])[:-3])]  # noted only when it is whole
    planned = one.fetched()
    ledger = Ledger(one.lake.files, planned.staging)
    noted = [ledger.hashes(entry) for entry in ledger.batches()]
    found = [each for hashes in noted if hashes is not None for each in hashes.tolist()]
    assert found == hash_ids(pl.Series(IDS)).tolist()


def test_export_begun_by_version_before_is_read_back(
    exporting: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = [page(["01", "02"]), page(["02", "04"])]
    one = exporting(repeated, repeated, WHOLE, rows=4)
    with monkeypatch.context() as before:
        real = Ledger.add
        before.setattr(Ledger, "add", lambda self, batch, hashes: real(self, batch))
        planned = one.plan()
        one.fetch(planned)
    assert not one.check(planned)
    assert "more than once" in one.problems[0]
    one.finish()
    assert one.ids() == IDS


def test_fetched_chunk_is_not_fetched_again(
    exporting: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 1)
    one = exporting([page([f"{number}"]) for number in range(4)], rows=4)
    calls, planned = one.service.calls, one.plan()
    first, *others = tasks.chunks(planned)
    one.fetch_chunk(planned, first)
    before = calls["page 0"]
    one.finish()
    assert others
    assert before == calls["page 0"] == 1
    # Nor is anything when it runs once more.
    asked = {"/v1/auth", "/v1/customer/pages"}  # whether the group has as many customers
    before = {name: count for name, count in calls.items() if name not in asked}
    again = one.fetched()
    assert again.done
    assert one.commit(again).rows == 4
    assert {name: count for name, count in calls.items() if name not in asked} == before


def test_second_export_replaces_first_for_readers(exporting: Exporter) -> None:
    exporting([page(["01"]), page(["02"])], rows=2).finish()
    one = another_refresh(exporting(WHOLE, rows=4))
    one.finish()
    assert one.ids() == IDS
    names = one.lake.files.list_names(FOLDER)
    assert [name for name in names if name.startswith("_")] == list(map(manifest_name, (0, 1)))


def test_second_writer_of_a_run_is_refused(exporting: Exporter) -> None:
    one, other = exporting(WHOLE, rows=4), another_refresh(exporting(WHOLE, rows=4))
    first, second = one.fetched(), other.fetched()
    one.commit(first)
    with pytest.raises(RunTaken, match="Another flow run has written run 2 of campaign C"):
        other.commit(second)
    with pytest.raises(RunTaken):
        other.fetch(second)
    manifest = one.lake.manifest("C", 2)
    assert manifest is not None
    assert manifest.writer == first.writer
    assert one.ids() == IDS


def test_pointer_names_latest_run(exporting: Exporter) -> None:
    one = exporting([page(["01"])], rows=1)
    for number in (2, 3, 1):
        one.refresh = new_refresh()
        one.run = one.run.model_copy(update={"run_number": number, "previous_run": None})
        one.finish()
    latest = Latest.model_validate_json(one.lake.files.read(f"messages/campaign_id=C/{LATEST}"))
    assert latest == Latest(run_number=3, manifest="run_number=3/_manifest-00000.json")
    assert one.lake.read("C").shape == (1, 2)
    assert one.lake.runs()["run_number"].to_list() == [1, 2, 3]


def test_pages_are_taken_as_they_are_without_count(exporting: Exporter) -> None:
    one = exporting([page(["01", "02"]), page(["03"])], rows=None)
    one.service.states.pop(0)
    one.run = one.run.model_copy(update={"past": True, "run_number": 1})
    one.finish()
    assert one.ids() == ["01", "02", "03"]
    assert one.service.calls["text 0"] == one.service.calls["text 1"] == 1


@pytest.mark.parametrize(
    ("pages", "rows", "count"),
    [
        (1, 0, 1),
        (10_000, 500_000_000, 32),
        (10_000, None, 32),
        (40, 2_000_000, 7),
        (40, 10**9, 7),
        (7, 10**9, 7),
        (3, 10**9, 3),
    ],
)
def test_chunks_are_few_for_many_pages(pages: int, rows: int | None, count: int) -> None:
    chunks = tasks.chunks(export_ref(pages, rows))
    assert len(chunks) == count
    covered = [number for first, last in chunks for number in range(first, last + 1)]
    assert covered == list(range(pages))


def test_reconciliation_error_has_the_numbers(
    company: Company, local: Local, exporting: Exporter
) -> None:
    one = exporting([page(["01", "02", "02", "09"])], rows=None)
    export = one.plan()
    one.fetch(export)
    seeded, listed = company.seeded, ["01", "02", "03"]
    group = GroupRef(
        workspace_id=seeded.workspace_id,
        customer_group_id=seeded.customer_group_id,
        name="n",
        size=0,
    )
    validated = Validated(
        accepted=local.staged(pl.DataFrame({"id": listed})),
        extracted=3,
        rejected=0,
        quarantine=None,
        key="id",
        fingerprint="f",
    )
    with pytest.raises(
        NotReconciled,
        match="300 customers, the lake holds 4 rows: "
        "1 customers are missing, 1 are not in the list, 1 are repeated",
    ):
        reconcile.fn(company.account(), group, export, validated, local.lake)
    assert one.lake.manifest("C", 2) is None
