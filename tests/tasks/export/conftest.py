"""A run's export, step by step, from a service that grows, changes or lies."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from blocks import DataLake, NudgescribeAccount
from nudgescribe.client import NudgescribeClient
from nudgescribe.retry import RetryPolicy
from tasks.export import run as tasks
from tasks.export.download import ExportRef
from tasks.export.run import RunInLake, RunToExport
from tasks.journal.refresh import Refresh
from tests.conftest import Company
from tests.support.clock import Clock
from tests.support.exports import Export
from tests.support.http_server import serving
from tests.tasks.conftest import Local

RUN = RunToExport(
    campaign_id="C",
    run_number=2,
    workspace_id="W",
    customer_group_id="G",
    job_uid="J",
    previous_run=1,
    previous_pages=2,
)
FOLDER = "messages/campaign_id=C/run_number=2"


def export_ref(pages: int, rows: int | None = None) -> ExportRef:
    """An export of `RUN` that nobody has planned."""
    return ExportRef(
        campaign_id=RUN.campaign_id,
        run_number=RUN.run_number,
        customer_group_id=RUN.customer_group_id,
        job_uid=RUN.job_uid,
        past=False,
        pages=pages,
        rows=rows,
        writer="w",
        staging="staging/w",
        generation=0,
        done=False,
    )


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    return DataLake(root=str(tmp_path / "lake"))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only when somebody sleeps."""
    monkeypatch.setattr(tasks, "POLL_POLICY", Clock().poll_policy())
    real = NudgescribeAccount.get_client

    def get_client(self: NudgescribeAccount, **options: Any) -> NudgescribeClient:
        return real(self, retry=RetryPolicy(attempts=2, sleep=lambda seconds: None))

    monkeypatch.setattr(NudgescribeAccount, "get_client", get_client)


class Exporting:
    """A flow run's export of `RUN`, of so many rows if that is known, from `service`."""

    def __init__(self, local: Local, refresh: Refresh, service: Export, rows: int | None) -> None:
        self.local, self.refresh, self.service = local, refresh, service
        self.run = RUN.model_copy(update={"check_rows": rows is not None})
        service.answers["/v1/customer/pages"] = {"num_pages": 1, "page_size": 1, "total": rows}
        self.problems: list[str] = []

    @property
    def lake(self) -> DataLake:
        return self.local.lake

    def plan(self) -> ExportRef:
        return tasks.plan_export.fn(self.local.account, self.run, self.lake, self.refresh, 1)

    def fetch(self, export: ExportRef, downloads: int = 4) -> None:
        for chunk in tasks.chunks(export):
            self.fetch_chunk(export, chunk, downloads)

    def fetch_chunk(self, export: ExportRef, chunk: tuple[int, int], downloads: int = 4) -> None:
        tasks.fetch_chunk.fn(self.local.account, export, *chunk, self.lake, downloads)

    def check(self, export: ExportRef) -> bool:
        problem = tasks.check_export.fn(export, self.lake)
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
        return tasks.commit_run.fn(export, self.lake)

    def finish(self) -> RunInLake:
        return self.commit(self.fetched())

    def ids(self) -> list[str]:
        """The customers of the run in the lake."""
        return self.lake.read("C", self.run.run_number, "polars")["customer_id"].to_list()


Exporter = Callable[..., Exporting]


@pytest.fixture
def exporting(company: Company, local: Local, refresh: Refresh) -> Iterator[Exporter]:
    """Begins an export of so many rows; the account's service shows the given states in turn."""
    with ExitStack() as stack:

        def begin(*states: list[bytes], rows: int | None, moves: int = 0) -> Exporting:
            service = stack.enter_context(serving(Export(*states, moves=moves)))
            local.account = company.account(base_url=service.url)
            return Exporting(local, refresh, service, rows)

        yield begin
