"""Fetching an export that grows, changes or lies; proving what is in the lake."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from blocks import DataLake, NudgescribeAccount
from blocks.storage.manifest import LATEST, Latest, manifest_name
from nudgescribe.client import NudgescribeClient
from nudgescribe.errors import NotFound
from nudgescribe.retry import RetryPolicy
from tasks.campaigns import Refresh
from tasks.customers.staging import remove_staged
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export import download
from tasks.export import run as tasks
from tasks.export.download import ExportRef, PageBroken
from tasks.export.run import ExportIncomplete, RunInLake, RunTaken, RunToExport, WhichRuns
from tasks.refresh import reconcile as reconciling
from tasks.refresh.reconcile import NotReconciled
from tests.conftest import Company
from tests.support import exports, http_server
from tests.support.clock import Clock
from tests.support.exports import Export, another, page
from tests.tasks.conftest import Local

RUN = RunToExport(
    campaign_id="C",
    run_number=2,
    customer_group_id="G",
    job_uid="J",
    previous_run=1,
    previous_pages=2,
)
FOLDER = "messages/campaign_id=C/run_number=2"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only when somebody sleeps."""
    monkeypatch.setattr(tasks, "PACE", Clock().pace())
    real = NudgescribeAccount.get_client

    def get_client(self: NudgescribeAccount, **options: Any) -> NudgescribeClient:
        return real(self, retry=RetryPolicy(attempts=2, sleep=lambda seconds: None))

    monkeypatch.setattr(NudgescribeAccount, "get_client", get_client)


Serve = Callable[[Export], Export]


@pytest.fixture
def serve(company: Company, local: Local) -> Iterator[Serve]:
    """Has the account's service be another one."""
    with ExitStack() as stack:

        def serve(export: Export) -> Export:
            stack.enter_context(http_server.serving(export))
            local.account = company.account(base_url=export.url)
            return export

        yield serve


class Exporting:
    """A flow run's export of `RUN`, step by step."""

    def __init__(self, local: Local, refresh: Refresh, rows: int | None) -> None:
        self.local, self.refresh = local, refresh
        self.run = RUN.model_copy(update={"rows": rows})
        self.problems: list[str] = []

    def plan(self) -> ExportRef:
        return tasks.plan_export.fn(self.local.account, self.run, self.local.lake, self.refresh, 1)

    def fetch(self, export: ExportRef, downloads: int = 4) -> None:
        for first, last in tasks.chunks(export):
            tasks.fetch_chunk.fn(
                self.local.account, export, first, last, self.local.lake, downloads
            )

    def check(self, export: ExportRef) -> bool:
        problem = tasks.check_export.fn(export, self.local.lake)
        self.problems += [problem] if problem else []
        return problem is None

    def fetched(self, rounds: int = 4) -> ExportRef:
        for _ in range(rounds):
            export = self.plan()
            if export.done:
                return export
            self.fetch(export)
            if self.check(export):
                return export
        raise AssertionError(self.problems)

    def commit(self, export: ExportRef) -> RunInLake:
        return tasks.commit_run.fn(export, self.local.lake)


@pytest.fixture
def exporting(local: Local, refresh: Refresh) -> Callable[[int | None], Exporting]:
    return lambda rows: Exporting(local, refresh, rows)


def ids(lake: DataLake) -> list[str]:
    return lake.read("C", 2, "polars")["customer_id"].to_list()


@pytest.mark.parametrize("file_format", ["parquet", "csv", "csv.zst", "delta"])
def test_export_completes_when_pages_arrive_one_by_one(
    local: Local, serve: Serve, exporting: Callable[..., Exporting], file_format: Any
) -> None:
    lake = local.lake = local.lake.model_copy(update={"format": file_format})
    grown = [page(["01", "02"]), page(["03"])]
    serve(Export([], grown[:1], grown[:1], grown))
    one = exporting(3)
    done = one.commit(one.fetched())
    assert done.rows == 3
    assert ids(lake) == ["01", "02", "03"]
    manifest = lake.manifest("C", 2)
    assert manifest is not None
    assert [(each.page, each.rows) for each in manifest.pages] == [(0, 2), (1, 1)]
    assert manifest.bytes == done.bytes > 0


def test_small_pages_share_a_part(
    local: Local, serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    serve(Export([page([f"{number}"]) for number in range(7)]))
    one = exporting(7)
    assert one.commit(one.fetched()).files == 1
    manifest = local.lake.manifest("C", 2)
    assert manifest is not None
    assert manifest.parts[0].pages == list(range(7))


def test_growing_page_is_fetched_again(
    local: Local, serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    early = [page(["01"])]
    serve(Export(early, early, [page(["01", "02"])]))
    one = exporting(2)
    one.commit(one.fetched())
    assert ids(local.lake) == ["01", "02"]


def test_pages_of_earlier_export_are_fetched_again(
    local: Local, serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    old, new = [page(["01", "09"]), page(["10"])], [page(["01"]), page(["02"])]
    serve(Export(old, old, new))
    one = exporting(2)
    one.commit(one.fetched())
    assert ids(local.lake) == ["01", "02"]


def test_export_with_fewer_pages_is_fetched_again(
    local: Local,
    serve: Serve,
    exporting: Callable[..., Exporting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 1)  # a part for each page
    old, new = [page(["01"]), page(["02"]), page(["03"])], [page(["01", "02"]), page(["03", "04"])]
    serve(Export(old, old, new))
    one = exporting(4)
    one.fetch(one.plan())  # a first try, killed
    one.commit(one.fetched())
    assert ids(local.lake) == ["01", "02", "03", "04"]
    assert one.problems == ["The export has 2 pages now, 1 fewer than before."]


def test_pages_of_previous_run_are_not_taken(
    serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    export = serve(Export([page(["01"])], moves=5))
    assert exporting(1).plan().pages == 1
    assert export.calls["moves"] == 7
    serve(Export([page(["01"])], moves=exports.FOREVER))
    with pytest.raises(ExportIncomplete, match="shows 0 pages after 1 minutes"):
        exporting(1).plan()


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
    local: Local,
    serve: Serve,
    exporting: Callable[..., Exporting],
    fault: exports.Fault,
    problem: str | None,
) -> None:
    export = serve(Export([page(["01", "02"]), page(["03", "04"])]))
    export.page_faults[0] = [fault]
    one = exporting(4)
    one.commit(one.fetched())
    assert ids(local.lake) == ["01", "02", "03", "04"]
    assert export.calls["page 0"] == 2
    if problem:
        assert len(one.problems) == 1
        assert pl.Series(one.problems).str.contains(problem).all()
    else:
        assert not one.problems


@pytest.mark.parametrize("size", [download.READ_AT_ONCE, 0], ids=["small", "large"])
def test_page_is_named_when_it_stays_broken(
    local: Local,
    serve: Serve,
    exporting: Callable[..., Exporting],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    monkeypatch.setattr(download, "READ_AT_ONCE", size)
    export = serve(
        Export([page(["01", "02"]), b'customer_id,message\r\n03,"never ends', page(["4"])])
    )
    one = exporting(4)
    with pytest.raises(PageBroken, match="Page 1 of run 2 of campaign C is broken: .* cut off"):
        one.fetched()
    assert export.calls["page 1"] == download.TRIES
    assert local.lake.manifest("C", 2) is None
    assert local.lake.files.list_names(FOLDER) == []


def test_large_page_is_read_in_blocks(
    local: Local,
    serve: Serve,
    exporting: Callable[..., Exporting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "READ_AT_ONCE", 0)
    serve(Export([page(["01", "02"]), page(["03"])]))
    one = exporting(3)
    one.commit(one.fetched())
    assert ids(local.lake) == ["01", "02", "03"]


def test_fetched_chunk_is_not_fetched_again(
    local: Local,
    serve: Serve,
    exporting: Callable[..., Exporting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 1)
    export = serve(Export([page([f"{number}"]) for number in range(4)]))
    one = exporting(4)
    ref = one.plan()
    first, *others = tasks.chunks(ref)
    tasks.fetch_chunk.fn(local.account, ref, *first, local.lake, 4)
    before = export.calls["page 0"]
    one.commit(one.fetched())
    assert others
    assert before == export.calls["page 0"] == 1
    # Nor is anything when it runs once more.
    calls = export.calls.total()
    again = one.fetched()
    assert again.done
    assert one.commit(again).rows == 4
    assert export.calls.total() == calls
    remove_staged.fn(local.lake, one.refresh)
    assert local.lake.files.list_names("staging") == []


def test_second_export_replaces_first_for_readers(
    local: Local, serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    serve(Export([page(["01"]), page(["02"])]))
    one = exporting(2)
    one.commit(one.fetched())
    serve(Export([page(["01", "02", "03"])]))
    one = exporting(3)
    one.refresh = Refresh(id="another", started=one.refresh.started)
    one.commit(one.fetched())
    assert ids(local.lake) == ["01", "02", "03"]
    names = local.lake.files.list_names(FOLDER)
    assert [name for name in names if name.startswith("_")] == list(map(manifest_name, (0, 1)))


def test_second_writer_of_a_run_is_refused(
    local: Local, serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    serve(Export([page(["01"])]))
    one, other = exporting(1), exporting(1)
    other.refresh = Refresh(id="another", started=one.refresh.started)
    first, second = one.fetched(), other.fetched()
    one.commit(first)
    with pytest.raises(RunTaken, match="Another flow run has written run 2 of campaign C"):
        other.commit(second)
    with pytest.raises(RunTaken):
        other.fetch(second)
    manifest = local.lake.manifest("C", 2)
    assert manifest is not None
    assert manifest.writer == first.writer
    assert ids(local.lake) == ["01"]


def test_pointer_names_latest_run(
    local: Local, serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    serve(Export([page(["01"])]))
    for number in (2, 1, 3):
        one = exporting(1)
        one.refresh = Refresh(id=f"refresh {number}", started=one.refresh.started)
        one.run = one.run.model_copy(update={"run_number": number, "previous_run": None})
        one.commit(one.fetched())
    latest = Latest.model_validate_json(local.lake.files.read(f"messages/campaign_id=C/{LATEST}"))
    assert latest == Latest(run_number=3, manifest="run_number=3/_manifest-00000.json")
    assert local.lake.read("C").shape == (1, 2)
    assert local.lake.runs()["run_number"].to_list() == [1, 2, 3]


def test_pages_are_taken_as_they_are_without_count(
    local: Local, serve: Serve, exporting: Callable[..., Exporting]
) -> None:
    export = serve(Export([page(["01", "02"]), page(["03"])]))
    export.states.pop(0)
    one = exporting(None)
    one.run = one.run.model_copy(update={"past": True, "run_number": 1})
    one.commit(one.fetched())
    assert local.lake.read("C", 1, "arrow").num_rows == 3
    assert export.calls["text 0"] == export.calls["text 1"] == 1


def test_chunks_are_few_for_many_pages(exporting: Callable[..., Exporting]) -> None:
    def chunks(pages: int, rows: int | None) -> list[tuple[int, int]]:
        ref = ExportRef(
            **RUN.model_dump(include={"campaign_id", "run_number", "customer_group_id", "job_uid"}),
            pages=pages,
            rows=rows,
            past=False,
            writer="w",
            staging="s",
            generation=0,
            done=False,
        )
        return tasks.chunks(ref)

    assert chunks(1, 0) == [(0, 0)]
    for pages_, rows, most in (
        (10_000, 500_000_000, 32),
        (10_000, None, 32),
        (40, 2_000_000, 7),
        (40, 10**9, 7),
        (7, 10**9, 7),
        (3, 10**9, 3),
    ):
        found = chunks(pages_, rows)
        assert len(found) == most
        assert [number for first, last in found for number in range(first, last + 1)] == list(
            range(pages_)
        )


@pytest.mark.parametrize("which", ["latest", "all", 1])
def test_find_runs_returns_current_run(company: Company, local: Local, which: WhichRuns) -> None:
    (run,) = tasks.find_runs.fn(local.account, company.seeded.campaign_id, which, True)
    assert (run.run_number, run.rows, run.past) == (1, 300, False)


def test_find_runs_fails_when_run_is_missing(company: Company, local: Local) -> None:
    with pytest.raises(NotFound, match="has no run 7"):
        tasks.find_runs.fn(local.account, company.seeded.campaign_id, 7, True)


def reconciled(company: Company, local: Local, export: ExportRef, *listed: str) -> None:
    """Reconciles a list with the seeded group and what was fetched."""
    local.account = company.account()
    accepted = local.staged(pl.DataFrame({"id": listed}, schema={"id": pl.String}))
    validated = Validated(
        accepted=accepted,
        extracted=len(listed),
        rejected=0,
        quarantine=None,
        key="id",
        fingerprint="f",
    )
    seeded = company.seeded
    group = GroupRef(
        workspace_id=seeded.workspace_id,
        customer_group_id=seeded.customer_group_id,
        name="n",
        size=0,
    )
    reconciling.reconcile.fn(local.account, group, export, validated, local.lake)


def test_reconciliation_error_has_the_numbers(
    company: Company,
    local: Local,
    serve: Serve,
    exporting: Callable[..., Exporting],
    tmp_path: Path,
) -> None:
    serve(Export([page(["01", "02", "02", "09"])]))
    one = exporting(None)
    export = one.plan()
    one.fetch(export)
    with pytest.raises(
        NotReconciled,
        match="300 customers, the lake holds 4 rows: "
        "1 customers are missing, 1 are not in the list, 1 are repeated",
    ):
        reconciled(company, local, export, "01", "02", "03")
    assert local.lake.manifest("C", 2) is None
