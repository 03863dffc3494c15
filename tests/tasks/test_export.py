"""Fetching an export that grows, changes or lies; proving what is in the lake."""

import itertools
from pathlib import Path

import httpx
import polars as pl
import pytest

from blocks import DataLake
from blocks.manifest import MANIFEST, Format
from nudgescribe import errors, rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS
from tasks import export as tasks
from tasks.campaigns import CampaignRef, RunRef
from tasks.export import ExportIncomplete, RunInLake
from tasks.groups import GroupRef
from tasks.reconcile import NotReconciled, _customer_ids, reconcile
from tasks.staging import describe
from tasks.validate import Validated
from tests.clock import Clock
from tests.conftest import Company, Save, Saved, Through, customers
from tests.faults import FaultyTransport, answering

CAMPAIGN = CampaignRef(
    campaign_id="C", name="n", workspace_id="W", previous_run=1, previous_pages=2
)
RUN = RunRef(campaign_id="C", run_number=2, customer_group_id="G", job_uid="J")


class Export(FaultyTransport):
    """A service whose export shows one state after the other, each a list of its pages' ids.

    Every look at the number of pages goes one state on; the last one stays. The pages of the run
    before are put away after `moves` looks.
    """

    def __init__(
        self,
        *states: list[list[str]],
        columns: tuple[str, ...] = MESSAGE_COLUMNS,
        moves: int = 0,
    ) -> None:
        self._states = [[], *states]
        self._columns = columns
        looks = itertools.count()
        signed_in = answering(b"")._answer
        assert signed_in

        def answer(request: httpx.Request) -> httpx.Response:
            path = request.url.path
            if path == "/v1/messages/pages":
                if b"run_number" in request.read():
                    return httpx.Response(200, json={"num_files": 2 * (next(looks) >= moves)})
                if len(self._states) > 1:
                    self._states.pop(0)
                return httpx.Response(200, json={"num_files": len(self._states[0])})
            if path == "/v1/messages/fetch":
                number = request.read().decode().partition('"file_num":')[2].partition(",")[0]
                link = {"url": f"http://x/{number}", "expires_at": "2026-11-21T00:00:00Z"}
                return httpx.Response(200, json=link)
            if path.strip("/").isdecimal():
                return httpx.Response(200, content=self._page(int(path.strip("/"))))
            return signed_in(request)

        super().__init__(answer=answer)

    def _page(self, number: int) -> bytes:
        ids = self._states[0][number]
        frame = pl.DataFrame([ids, [f"to {one}" for one in ids]], schema=list(self._columns))
        return rfc4180.write(frame)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only when somebody sleeps."""
    monkeypatch.setattr(tasks, "PACE", Clock().pace())


@pytest.fixture
def saved(company: Company, save: Save) -> Saved:
    return save(company, customers(3))


def export(saved: Saved, rows: int, file_format: Format = "parquet") -> RunInLake:
    return tasks.export_messages.fn(saved.name, CAMPAIGN, RUN, rows, saved.name, file_format, 1)


def ids(lake: DataLake) -> list[str]:
    manifest = lake.manifest("C", 2)
    assert manifest is not None
    return _customer_ids(lake, manifest)["customer_id"].to_list()


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_pages_that_come_one_by_one(saved: Saved, through: Through, file_format: Format) -> None:
    grown = [["01", "02"], ["03"]]
    through(Export([], grown[:1], grown[:1], grown))
    done = export(saved, 3, file_format)
    assert (done.files, done.rows) == (2, 3)
    assert ids(saved.lake) == ["01", "02", "03"]


def test_a_page_that_was_still_growing_is_fetched_again(saved: Saved, through: Through) -> None:
    through(Export([["01"]], [["01"]], [["01", "02"]]))
    assert export(saved, 2).files == 1
    assert ids(saved.lake) == ["01", "02"]


def test_pages_of_an_earlier_export_are_all_fetched_again(saved: Saved, through: Through) -> None:
    old, new = [["01", "09"], ["10"]], [["01"], ["02"]]
    through(Export(old, old, new))
    assert export(saved, 2).rows == 2
    assert ids(saved.lake) == ["01", "02"]


def test_pages_of_the_run_before_are_never_taken_for_this_runs(
    saved: Saved, through: Through
) -> None:
    through(transport := Export([["01"], ["02"]], moves=5))
    assert export(saved, 2).rows == 2
    first_link = next(
        number
        for number, request in enumerate(transport.requests)
        if request.url.path == "/v1/messages/fetch"
    )
    looks = [b"run_number" in one.content for one in transport.requests[1:first_link]]
    assert looks[:6] == [True] * 6
    through(transport := Export([["01"], ["02"]], moves=10**9))
    saved.lake.remove("messages")
    with pytest.raises(ExportIncomplete, match="shows 0 pages"):
        export(saved, 2)
    assert transport.calls["/v1/messages/fetch"] == 0


def test_a_run_in_the_lake_is_not_fetched_again(saved: Saved, through: Through) -> None:
    through(Export([["01"], ["02"]]))
    first = export(saved, 2)
    through(transport := Export([["01"], ["02"]]))
    assert export(saved, 2) == first
    assert not transport.calls
    assert export(saved, 2, "csv").files == 2
    assert ids(saved.lake) == ["01", "02"]


def test_fewer_pages_than_before_leave_none_behind(saved: Saved, through: Through) -> None:
    through(Export([["01"], ["02"], ["03"], ["04"]]))
    export(saved, 4)
    through(Export([["01", "02", "03"]]))
    export(saved, 3)
    assert saved.lake.names("messages/campaign_id=C/run_number=2") == [
        MANIFEST,
        "part-00000.parquet",
    ]
    assert ids(saved.lake) == ["01", "02", "03"]


def test_an_export_that_shrinks_while_it_is_fetched(saved: Saved, through: Through) -> None:
    old = [["01"], ["02"], ["03"]]
    through(Export(old, old, [["01", "02"]], [["01", "02"]], [["01", "02"], ["03", "04"]]))
    assert export(saved, 4).files == 2
    assert ids(saved.lake) == ["01", "02", "03", "04"]


@pytest.mark.parametrize("pages", [[], [["01"]], [["01", "02", "03", "04"]]])
def test_an_export_that_never_adds_up_is_an_error(
    saved: Saved, through: Through, pages: list[list[str]]
) -> None:
    through(Export(pages))
    with pytest.raises(ExportIncomplete, match=f"shows {len(pages)} pages .* add up to 3 rows"):
        export(saved, 3)
    assert saved.lake.manifest("C", 2) is None


def test_other_columns_are_a_contract_mismatch(saved: Saved, through: Through) -> None:
    through(Export([["01"]], columns=("customer_id", "text")))
    with pytest.raises(errors.ContractMismatch, match="Page 0 has columns customer_id, text"):
        export(saved, 1)


def reconciled(company: Company, saved: Saved, folder: Path, *listed: str) -> None:
    """Reconciles a list with the seeded group and what was exported."""
    local = folder / "list.parquet"
    pl.DataFrame({"id": listed}, schema={"id": pl.String}).write_parquet(local)
    saved.lake.put(local, "staging/list.parquet")
    accepted = describe(local, "staging/list.parquet")
    validated = Validated(
        accepted=accepted, extracted=len(listed), rejected=0, quarantine=None, key="id"
    )
    seeded = company.seeded
    group = GroupRef(
        workspace_id=seeded.workspace_id, customer_group_id=seeded.customer_group_id, name="n"
    )
    reconcile.fn(saved.name, group, RUN, validated, saved.name)


def test_reconciling_says_by_how_much_they_differ(
    company: Company,
    saved: Saved,
    through: Through,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through(Export([["01", "02", "02", "09"]]))
    export(saved, 4)
    monkeypatch.undo()  # the group is counted at the real service
    with pytest.raises(
        NotReconciled,
        match="300 customers, the manifest names 4, the lake holds 4 rows: "
        "1 customers are missing, 1 do not belong there, 1 are repeated",
    ):
        reconciled(company, saved, tmp_path, "01", "02", "03")
    assert saved.lake.manifest("C", 2) is None


def test_a_run_without_a_manifest_is_not_reconciled(
    company: Company, saved: Saved, tmp_path: Path
) -> None:
    with pytest.raises(NotReconciled, match="has no manifest"):
        reconciled(company, saved, tmp_path, "01")
