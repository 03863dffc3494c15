"""The export flow: a real sandbox, or a scripted service, a real Prefect server, a real lake."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from benchmarks.pages_server import CAMPAIGN, answers
from blocks import DataLake
from flows.export import export_messages
from flows.options import ExportOptions
from flows.run import fetch
from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.errors import NotFound, NotPublished
from tasks.export import run as tasks
from tasks.export.run import ExportIncomplete, RunInLake, WhichRuns
from tasks.ui.artifacts import artifact_key
from tasks.ui.assets import messages
from tests.conftest import SEEDED_CUSTOMERS, Company, Save, Saved, customers
from tests.support import exports
from tests.support.artifacts import all_artifacts
from tests.support.clock import SECONDS, Clock, until
from tests.support.deployed import events_of, flow_run_of, retry, work
from tests.support.exports import Export, page
from tests.support.http_server import DROPPED, Reply, serving

RUN = (
    "import json, sys; from tasks.export import run; run.ROWS_A_CHUNK = 1; "
    "from flows.export import export_messages; export_messages(**json.loads(sys.argv[1]))"
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Between two looks no time passes but by this clock."""
    one = Clock()
    monkeypatch.setattr(fetch, "POLL_POLICY", one.poll_policy(first_wait=1, longest_wait=120))
    monkeypatch.setattr(tasks, "POLL_POLICY", one.poll_policy())
    return one


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int | None]]:
    """The pages that are downloaded, each with its run if that is a past one."""
    seen: list[tuple[int, int | None]] = []
    real = NudgescribeClient.download_page

    def download(
        self: NudgescribeClient, campaign_id: str, number: int, file: Any, run: int | None = None
    ) -> int:
        seen.append((number, run))
        return real(self, campaign_id, number, file, run)

    monkeypatch.setattr(NudgescribeClient, "download_page", download)
    return seen


def export_all(
    saved: Saved, campaign_id: str, run: WhichRuns = "all", **options: Any
) -> list[RunInLake]:
    return export_messages(
        campaign_id,
        saved.account,
        saved.lake,
        run,
        options=ExportOptions.model_validate(options),
    )


def export(saved: Saved, campaign_id: str, run: WhichRuns = "latest", **options: Any) -> RunInLake:
    (one,) = export_all(saved, campaign_id, run, **options)
    return one


def in_lake(saved: Saved, campaign_id: str, run_number: int) -> list[tuple[str, ...]]:
    return saved.lake.read(campaign_id, run_number, "polars").rows()


def at_service(company: Company, run_number: int | None = None) -> list[tuple[str, ...]]:
    """The messages as the service has them."""
    campaign = company.seeded.campaign_id
    with company.client() as client:
        count = client.count_message_pages(campaign, run_number)
        pages = (client.fetch_csv(campaign, number, run_number) for number in range(count))
        return [row for text in pages for row in rfc4180.read(text.encode()).rows()]


def rerun(company: Company, count: int, *, pages: int | None = None) -> str:
    """A second run on so many customers, published if it is to have pages; returns its group."""
    campaign, workspace = company.seeded.campaign_id, company.seeded.workspace_id
    with company.client() as client:
        group = client.create_group(workspace, "The second").customer_group_id
        client.upload_customers(workspace, group, rfc4180.write(customers(count)))
        client.initiate_rerun(campaign, group)
        company.settle(client)
        if pages:
            company.sandbox.approve(campaign)
            client.publish(campaign)
            until(lambda: client.count_message_pages(campaign) == pages, every=0.01)
    return group


def test_export_fetches_current_run_once(
    company: Company, save: Save, downloads: list[tuple[int, int | None]]
) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    saved.save_account(company.account(campaign_url="https://service.example/{campaign_id}"))
    first = export(saved, campaign)
    assert (first.rows, first.files) == (SEEDED_CUSTOMERS, 1)
    assert first.folder == f"messages/campaign_id={campaign}/run_number=1"
    assert in_lake(saved, campaign, 1) == at_service(company)
    assert sorted(downloads) == [(0, None), (1, None), (2, None)]
    assert not list((saved.root / "staging").iterdir())
    # The same once more, by number: it is there.
    assert export(saved, campaign, 1) == first
    assert len(downloads) == 3
    assert saved.lake.runs()["run_number"].to_list() == [1]

    asset = f"lake://{saved.name}/messages/{campaign}"
    made = events_of("prefect.asset.materialization.succeeded", asset, 2)
    assert [one["payload"]["rows"] for one in made] == [SEEDED_CUSTOMERS] * 2
    source = f"nudgescribe://{saved.name}/campaigns/{campaign}"
    assert source in {one["prefect.resource.id"] for one in made[0]["related"]}
    # What happened once is told once.
    (event,) = events_of("nudgeflow.campaign.exported", f"nudgeflow.campaign.{campaign}")
    manifest = f"{first.folder}/_manifest-00000.json"
    assert (saved.root / manifest).exists()
    assert event["payload"] == {
        "campaign": campaign,
        "lake": saved.name,
        "run_number": 1,
        "folder": first.folder,
        "manifest": manifest,
        "files": 1,
        "rows": SEEDED_CUSTOMERS,
        "bytes": first.bytes,
    }
    assert {"flow", "flow-run"} <= {one["prefect.resource.role"] for one in event["related"]}
    artifacts = {one.key: str(one.data) for one in all_artifacts()}
    assert (
        f"(https://service.example/{campaign})"
        in artifacts[artifact_key("campaign", "Welcome back", campaign)]
    )


@pytest.mark.parametrize("name", ["C/1", "50 %", "a?b#c", "Ü"])
def test_asset_key_is_valid_for_any_id(name: str) -> None:
    assert messages(DataLake(root="/lake"), name).key.startswith("lake://not-saved/messages/")


def test_export_fetches_past_run(
    company: Company, save: Save, downloads: list[tuple[int, int | None]]
) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    rerun(company, 120, pages=2)
    assert [each.rows for each in export_all(saved, campaign)] == [SEEDED_CUSTOMERS, 120]
    assert sorted(downloads, key=str) == [(0, 1), (0, None), (1, 1), (1, None), (2, 1)]
    assert in_lake(saved, campaign, 1) == at_service(company, 1)
    assert in_lake(saved, campaign, 2) == at_service(company)
    assert saved.lake.read(campaign).shape == (120, 2)
    # All of them once more: they are there.
    assert [each.rows for each in export_all(saved, campaign)] == [SEEDED_CUSTOMERS, 120]
    assert len(downloads) == 5


def test_export_fetches_previous_run_during_review(
    company: Company, save: Save, downloads: list[tuple[int, int | None]]
) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    rerun(company, 20)
    with pytest.raises(NotPublished, match="is Ready for review, not Published"):
        export(saved, campaign)
    with pytest.raises(NotFound, match=f"Campaign {campaign} has no run 7"):
        export(saved, campaign, 7)
    assert downloads == []
    assert not (saved.root / "messages").exists()
    assert export(saved, campaign, "all", export_minutes=0.1).rows == SEEDED_CUSTOMERS
    assert in_lake(saved, campaign, 1) == at_service(company)


def test_export_names_incomplete_runs_after_all_others(company: Company, save: Save) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    group = rerun(company, 20, pages=1)
    with company.client() as client:
        client.upload_customers(company.seeded.workspace_id, group, rfc4180.write(customers(21)))
    with pytest.raises(ExportIncomplete, match="of run 2 .* hold 20 rows, not 21"):
        export_all(saved, campaign, export_minutes=0.02)
    assert saved.lake.runs()["run_number"].to_list() == [1]
    # Somebody who knows that the group has changed since takes it as it is.
    assert [each.rows for each in export_all(saved, campaign, check_rows=False)] == [
        SEEDED_CUSTOMERS,
        20,
    ]


# ---- a scripted service -----------------------------------------------------------------------

Serve = Callable[[Export], Saved]


@pytest.fixture
def serve(company: Company, save: Save) -> Iterator[Serve]:
    """Has the account's service be a scripted one."""
    with ExitStack() as stack:

        def serve(service: Export) -> Saved:
            saved = save(company, customers(1))
            stack.enter_context(serving(service))
            saved.save_account(company.account(base_url=service.url))
            return saved

        yield serve


def published(pages: int, customers: int | None = None) -> Export:
    """A campaign's run of so many pages of two rows; its group may say otherwise."""
    service = Export([page(ids_of(number)) for number in range(pages)])
    service.answers = answers(2 * pages if customers is None else customers, pages)
    return service


def ids_of(number: int) -> list[str]:
    return [f"{number:04}{row}" for row in range(2)]


def rows_of(pages: int) -> list[tuple[str, str]]:
    return [(one, f"to {one}") for number in range(pages) for one in ids_of(number)]


def test_export_has_few_task_runs_for_many_pages(
    serve: Serve,
    downloads: list[tuple[int, int | None]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Chunks as of pages with 50,000 rows each.
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", tasks.ROWS_A_CHUNK // 25_000)
    saved = serve(published(40))
    with caplog.at_level(logging.INFO):
        done = export(saved, CAMPAIGN, downloads=4)
    assert done.rows == 80
    assert in_lake(saved, CAMPAIGN, 1) == rows_of(40)
    assert sorted(downloads) == [(number, None) for number in range(40)]
    run = flow_run_of(saved)
    names = {one.task_run_name for one in caplog.records if one.name == "prefect.task_runs"}
    assert len([name for name in names if name.startswith("pages-")]) == done.files > 4
    assert len(names) <= 16
    assert run.name == "Winback, export of run 1"
    (shown,) = [one for one in all_artifacts() if one.flow_run_id == run.id]
    key = artifact_key("export", "Winback", CAMPAIGN)
    assert (shown.type, shown.key, shown.data) == ("progress", key, 100.0)
    assert str(shown.description).startswith("40 of 40 pages, 80 rows, ")


def test_export_fails_when_pages_never_add_up(serve: Serve, clock: Clock) -> None:
    service = published(2, customers=5)
    saved = serve(service)
    with pytest.raises(
        ExportIncomplete,
        match=r"The 2 pages of run 1 of campaign campaign-1 hold 4 rows, not 5; in doubt: page 1\. "
        r"It did not change in 0\.02 minutes",
    ):
        export(saved, CAMPAIGN, export_minutes=0.02)
    assert clock.now == pytest.approx(1.2)
    assert service.calls["page 1"] > 1
    assert saved.lake.manifest(CAMPAIGN, 1) is None
    # Somebody who knows that the group has changed since takes it as it is.
    assert export(saved, CAMPAIGN, check_rows=False).rows == 4
    assert in_lake(saved, CAMPAIGN, 1) == rows_of(2)


@pytest.fixture
def start(prefect_server: None) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Python processes that know the test's Prefect server; ends what is left of them."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            environment = {
                **os.environ,
                "PREFECT_API_URL": str(PREFECT_API_URL.value()),
                "PREFECT_HOME": str(PREFECT_HOME.value()),
            }
            process = subprocess.Popen([sys.executable, *arguments], env=environment)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def test_export_fetches_missing_pages_when_killed_and_retried(
    serve: Serve, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    service, dead = published(7), threading.Event()
    saved = serve(service)
    service.page_faults[3] = [held_until(dead)]
    blocks = {name: saved.references[name] for name in ("account", "lake")}
    process = start("-c", RUN, json.dumps({"campaign_id": CAMPAIGN, **blocks}))
    until(lambda: len(list(saved.root.glob("staging/*/*/pages/*.json"))) == 6, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    dead.set()
    assert saved.lake.manifest(CAMPAIGN, 1) is None
    run = flow_run_of(saved)
    retry(run.id)
    assert work(export_messages, run.id).is_completed()
    fetched = {number: service.calls[f"page {number}"] for number in range(7)}
    assert fetched == dict.fromkeys(range(7), 1) | {3: 2}
    assert in_lake(saved, CAMPAIGN, 1) == rows_of(7)
    manifest = saved.lake.manifest(CAMPAIGN, 1)
    assert manifest is not None
    left = {file.name for file in (saved.root / "messages").rglob("*") if file.is_file()}
    assert left == {"_latest.json", "_manifest-00000.json", *(one.name for one in manifest.parts)}
    assert not list((saved.root / "staging").iterdir())
    assert flow_run_of(saved).run_count == 2


def held_until(event: threading.Event) -> exports.Fault:
    """Does not answer before, and then nothing."""

    def hold(content: bytes) -> Reply:
        event.wait(SECONDS)
        return DROPPED

    return hold
