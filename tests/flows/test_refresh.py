"""The refresh end to end: a real sandbox over HTTP, a real Prefect server, a real lake."""

import logging
import re
from collections import Counter
from threading import Lock
from typing import Any

import httpx
import polars as pl
import pytest
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError
from pydantic import ValidationError

from blocks.rerun import RerunFailed
from blocks.saved import BlockNotFound
from blocks.storage.errors import LakeUnreachable
from blocks.storage.manifest import Format
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from nudgescribe import errors
from nudgescribe.contract import Status
from sandbox.engine import reruns
from tasks.customers.guardrails import GuardrailHit, Guardrails
from tasks.customers.validate import ListRefused
from tasks.export.run_diff import RunDiffSummary
from tasks.refresh.report import RefreshResult
from tests.conftest import Company, Save, Saved, customers
from tests.flows.run.test_events import events_of
from tests.support.deployed import Deployed, deployed

__all__ = ["deployed"]

ID = re.compile("[0-9a-f-]{36}")
UNCOUNTED = re.compile("/logs/|concurrency_limits")
"""What comes every other second, and what limits that an account names ask for."""


def refresh(company: Company, saved: Saved, options: RefreshOptions | None = None) -> RefreshResult:
    return campaign_refresh(
        company.seeded.campaign_id,
        **saved.blocks,
        options=options or RefreshOptions(guardrails=Guardrails(max_shrink=1)),
    )


def in_lake(saved: Saved, result: RefreshResult) -> pl.DataFrame:
    frame = saved.lake.read(result.campaign_id, result.run_number, "polars")
    assert isinstance(frame, pl.DataFrame)
    return frame


def expected_message(customer: dict[str, str]) -> str:
    return (
        f"Dear {customer['first_name']} {customer['last_name']},\n\n"
        f'your "{customer["plan"]}" plan in {customer["region"]} has something new for you: '
        "10 % off, until the end of the month.\n"
    )


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_refresh_brings_messages_of_list_into_lake(
    reviewed_company: Company, save: Save, file_format: Format
) -> None:
    listed = customers(250, invalid_every=50)
    saved = save(reviewed_company, listed)
    saved.lake.format = file_format
    saved.lake.save(saved.name, overwrite=True)
    result = refresh(reviewed_company, saved)
    assert (result.extracted, result.accepted, result.rejected) == (250, 245, 5)
    assert (result.matched, result.new, result.orphaned) == (12, 4, 4)
    assert (
        result.customers_in_new
        == listed.filter(pl.col("plan") == "student", pl.int_range(1, 251) % 50 != 0).height
    )
    good = [row for number, row in enumerate(listed.rows(named=True), 1) if number % 50]
    assert in_lake(saved, result).rows() == [
        (row["customer_id"], expected_message(row)) for row in good
    ]
    manifest = saved.lake.manifest(result.campaign_id, result.run_number)
    assert manifest is not None
    assert [(page.page, page.rows) for page in manifest.pages] == [(0, 100), (1, 100), (2, 45)]
    (part,) = manifest.parts
    assert (part.pages, part.rows, result.files) == ([0, 1, 2], 245, 1)
    assert (manifest.rows, manifest.customer_group_id) == (245, result.customer_group_id)
    assert result.quarantine is not None
    quarantine = pl.read_parquet(saved.root / result.quarantine)
    assert quarantine["row"].to_list() == [50, 100, 150, 200, 250]
    assert quarantine.columns == ["row", "field", "code", "reason"]
    assert list((saved.root / "staging").iterdir()) == []
    assert reviewed_company.history()[0].status == Status.PUBLISHED
    resource = f"nudgeflow.campaign.{result.campaign_id}"
    (event,) = events_of("nudgeflow.campaign.refreshed", resource)
    told = event["payload"]
    assert (told["campaign"], told["run_number"], told["rows"]) == (result.campaign_id, 2, 245)
    assert (saved.root / told["manifest"]).exists()
    assert list(result.seconds) == [
        "extract and validate",
        "upload",
        "rerun",
        "review",
        "publish and fetch",
        "reconcile",
        "compare",
    ]


def test_second_refresh_starts_another_run(reviewed_company: Company, save: Save) -> None:
    saved = save(reviewed_company, customers(120))
    options = RefreshOptions(
        group_name="The same name {campaign}", guardrails=Guardrails(max_shrink=1)
    )
    first, second = (refresh(reviewed_company, saved, options) for _ in range(2))
    assert (first.run_number, second.run_number) == (2, 3)
    assert first.group == "The same name Welcome back"
    assert second.group.startswith("The same name Welcome back (")
    assert (second.matched, second.new, second.orphaned) == (16, 0, 0)
    assert (first.run_diff, second.run_diff) == (
        RunDiffSummary(),
        RunDiffSummary(since=2, unchanged=120),
    )
    assert in_lake(saved, first).equals(in_lake(saved, second))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of Prefect's API by this process, by method and path; an id is a star."""
    seen: Counter[str] = Counter()
    lock = Lock()

    def note(request: httpx.Request) -> None:
        with lock:
            seen[f"{request.method} {ID.sub('*', request.url.path)}"] += 1

    sync, asynchronous = PrefectHttpxSyncClient.send, PrefectHttpxAsyncClient.send

    def send(client: PrefectHttpxSyncClient, request: httpx.Request, *a: Any, **o: Any) -> Any:
        note(request)
        return sync(client, request, *a, **o)

    def send_async(
        client: PrefectHttpxAsyncClient, request: httpx.Request, *a: Any, **o: Any
    ) -> Any:
        note(request)
        return asynchronous(client, request, *a, **o)

    monkeypatch.setattr(PrefectHttpxSyncClient, "send", send)
    monkeypatch.setattr(PrefectHttpxAsyncClient, "send", send_async)
    return seen


@pytest.mark.parametrize("planned", [False, True], ids=["program", "deployment"])
def test_refresh_makes_at_most_thirty_calls_of_prefect(
    reviewed_company: Company,
    save: Save,
    deployed: Deployed,
    calls: Counter[str],
    planned: bool,
) -> None:
    saved = save(reviewed_company, customers(250))
    if planned:
        run = deployed.refresh(reviewed_company, saved)
        calls.clear()
        assert deployed.work(run).name == "Completed"
    else:
        calls.clear()
        refresh(reviewed_company, saved)
    counted = {call: count for call, count in calls.items() if not UNCOUNTED.search(call)}
    assert sum(counted.values()) <= 30, counted


def lake_away(*arguments: object) -> None:
    raise LakeUnreachable("The lake was lost at messages.")


def test_refresh_is_reported_when_comparison_fails(
    reviewed_company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(reviewed_company, customers(100, invalid_every=30))
    monkeypatch.setattr("flows.run.finish.compare_messages", lake_away)
    result = refresh(reviewed_company, saved)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=200)
        run = next(run for run in runs if run.parameters.get("campaign_id") == result.campaign_id)
        artifacts = {one.key: one for one in client.read_artifacts() if one.flow_run_id == run.id}
    assert run.name == f"refresh-{result.campaign_id}"
    assert run.labels["nudgeflow.run_number"] == result.run_number
    assert run.labels["nudgeflow.job_uid"]
    report = artifacts[f"refresh-{result.campaign_id}"].data
    assert isinstance(report, str)
    assert ": 97 messages, one for each customer of the list." in report
    assert "| balance | not an amount with at most the currency's decimal digits | 1 |" in report
    assert "compared with earlier ones: The lake was lost at messages." in report
    assert artifacts[f"rerun-{result.campaign_id}"].type == "progress"
    assert artifacts[f"rerun-{result.campaign_id}"].data == 100.0
    assert artifacts["rejected-customers"].type == "table"
    assert task_runs(run) <= 40


def task_runs(run: FlowRun) -> int:
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        return len(client.read_task_runs(flow_run_filter=only))


def test_refresh_logs_and_stores_no_customer_data_or_secret(
    reviewed_company: Company, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    listed = customers(100, invalid_every=25).with_columns(
        last_name=pl.lit("canary-in-name"),
        visits=pl.when(pl.col("visits") == "many")
        .then(pl.lit("canary-in-number"))
        .otherwise("visits"),
    )
    with caplog.at_level(logging.DEBUG):
        result = refresh(reviewed_company, save(reviewed_company, listed))
    with get_client(sync_client=True) as client:
        stored = [
            *(str(one.data) for one in client.read_artifacts()),
            *(str(one.parameters) for one in client.read_flow_runs(limit=200)),
        ]
    seen = "".join([caplog.text, repr(result), *stored])
    assert "canary" not in seen
    seeded = reviewed_company.seeded
    for secret in (seeded.password, seeded.api_key, seeded.api_code, "signature=", "Bearer "):
        assert secret not in seen


def untouched(company: Company, saved: Saved) -> bool:
    """Nothing was changed at the service, nothing published to the lake."""
    return (
        len(company.history()) == 1
        and company.groups() == ["First customers"]
        and not (saved.root / "messages").exists()
        and not list(saved.root.glob("staging/*"))
    )


def drop(column: str) -> pl.DataFrame:
    return customers(20).drop(column)


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (customers(20).clear(), "0 rows were accepted, fewer than 1"),
        (drop("first_name"), "column 'first_name' is missing"),
        (drop("customer_id"), "column 'customer_id' is missing"),
        (
            customers(20).with_columns(pl.lit("x").alias("shoe_size")),
            "column 'shoe_size' is not a field of the workspace",
        ),
        (
            pl.concat([customers(20), customers(2)]),
            "2 customer identifiers occur more than once.*quarantine/",
        ),
        (customers(20, invalid_every=5), "4 of 20 rows were rejected, more than 5.0%.*quarantine/"),
    ],
)
def test_refresh_changes_nothing_when_list_is_refused(
    company: Company, save: Save, listed: pl.DataFrame, problem: str
) -> None:
    saved = save(company, listed)
    with pytest.raises((ListRefused, GuardrailHit), match=problem):
        refresh(company, saved)
    assert untouched(company, saved)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"guardrails": {}}, "60 customers, down from 300: it shrank by more than 30.0%"),
        ({"guardrails": {"max_shrink": 1, "max_new_segments": 3}}, "4 new segments, more than 3"),
        (
            {"guardrails": {"max_shrink": 1, "max_orphaned_segments": 3}},
            "4 segments would be left without customers, more than 3",
        ),
        ({"strict": True}, "Row 50, field"),
    ],
)
def test_refresh_changes_nothing_when_options_stop_it(
    reviewed_company: Company, save: Save, options: dict[str, object], problem: str
) -> None:
    saved = save(reviewed_company, customers(61, invalid_every=50))
    with pytest.raises((ListRefused, GuardrailHit), match=problem):
        refresh(reviewed_company, saved, RefreshOptions.model_validate(options))
    assert untouched(reviewed_company, saved)


def test_refresh_changes_nothing_when_list_lacks_variable(company: Company, save: Save) -> None:
    with company.client() as client:
        workspace = company.seeded.workspace_id
        region = next(f for f in client.list_fields(workspace) if f.field_name == "region")
        client.delete_field(region.field_id)
    saved = save(company, drop("region"))
    with pytest.raises(ListRefused, match="no column for the campaign's variables region"):
        refresh(company, saved)
    assert untouched(company, saved)


def test_refresh_changes_nothing_when_campaign_is_unknown(company: Company, save: Save) -> None:
    saved = save(company, customers(20))
    with pytest.raises(errors.NotFound, match="has no campaign unknown"):
        campaign_refresh("unknown", **saved.blocks)
    assert untouched(company, saved)


def test_refresh_changes_nothing_when_password_is_wrong(company: Company, save: Save) -> None:
    saved = save(company, customers(20))
    saved.save_account(company.account(password="wrong"))
    with pytest.raises(errors.AuthError, match="Check email, password"):
        refresh(company, saved)
    assert untouched(company, saved)


def test_refresh_changes_nothing_when_campaign_is_unpublished(company: Company, save: Save) -> None:
    saved = save(company, customers(20))
    with company.client() as client:
        group = client.create_group(company.seeded.workspace_id, "Somebody else's")
        one = customers(1).row(0, named=True)
        where = group.workspace_id, group.customer_group_id
        client.upload_customer(*where, {**one, "plan": "new"})
        client.initiate_rerun(company.seeded.campaign_id, group.customer_group_id)
        company.settle(client)
    with pytest.raises(errors.NotPublished, match="is Ready for review, not Published"):
        refresh(company, saved)
    assert len(company.history()) == 2
    assert company.groups() == ["First customers", "Somebody else's"]


def test_refresh_ends_when_rerun_fails(
    reviewed_company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(reviewed_company, customers(20))
    with monkeypatch.context() as broken:
        broken.setattr(reruns, "run_job", lambda *_: 1 / 0)
        with pytest.raises(RerunFailed, match="Run 2 of .* failed: Internal error") as failed:
            refresh(reviewed_company, saved)
    assert "start a new refresh" in str(failed.value)
    assert list((saved.root / "staging").iterdir()) == []
    assert refresh(reviewed_company, saved).run_number == 3


@pytest.mark.parametrize("wrong", ["account", "crm", "lake"])
def test_missing_block_is_named(company: Company, save: Save, wrong: str) -> None:
    saved = save(company, customers(20))
    name = {"crm": "file-crm/nowhere"}.get(wrong, "nowhere")
    with pytest.raises(BlockNotFound, match=f"There is no saved .* '{name}'"):
        campaign_refresh(company.seeded.campaign_id, **{**saved.blocks, wrong: name})
    assert untouched(company, saved)


def test_block_of_wrong_kind_is_named(company: Company, save: Save) -> None:
    saved = save(company, customers(20))
    with pytest.raises(ParameterTypeError, match="crm"):
        campaign_refresh(company.seeded.campaign_id, **{**saved.blocks, "crm": saved.lake})


@pytest.mark.parametrize("template", ["{campaign.__class__}", "{}", "{other}"])
def test_group_name_refuses_unknown_placeholders(template: str) -> None:
    with pytest.raises(ValidationError, match="only {campaign} and {run}"):
        RefreshOptions(group_name=template)


def test_options_refuse_unknown_names() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        RefreshOptions.model_validate({"format": "csv"})
