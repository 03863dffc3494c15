"""The refresh end to end: a real sandbox over HTTP, a real Prefect server, a real lake."""

import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import Any

import httpx
import polars as pl
import pytest
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.client.orchestration import get_client
from pydantic import ValidationError

from blocks import DataLake
from blocks.rerun import RerunFailed
from blocks.storage.errors import LakeUnreachable
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from nudgescribe import errors
from nudgescribe.contract import Status
from sandbox import seed
from sandbox.engine import reruns
from tasks.campaigns import CampaignRef
from tasks.customers.guardrails import GuardrailHit, TooManyRejected
from tasks.customers.split import ListRefused
from tasks.customers.staging import Staged
from tasks.customers.validate import Validated
from tasks.export.run_diff import RunDiffSummary
from tasks.refresh.claim import find_unchanged
from tasks.refresh.plan import PlanNotFound
from tasks.refresh.report import RefreshResult
from tasks.ui.artifacts import artifact_key
from tests.conftest import (
    SEEDED_CUSTOMERS,
    Company,
    Sandbox,
    Save,
    Saved,
    customers,
)
from tests.conftest import (
    saved as saved_blocks,
)
from tests.support.artifacts import all_artifacts
from tests.support.deployed import GUARDRAILS, Deployed, deployed, events_of, flow_run_of

__all__ = ["deployed"]

ID = re.compile("[0-9a-f-]{36}")
UNCOUNTED = re.compile("/logs/|concurrency_limits")
"""What comes every other second, and what limits that an account names ask for."""


def refresh(company: Company, saved: Saved, **options: Any) -> RefreshResult:
    return campaign_refresh(
        company.seeded.campaign_id,
        **saved.blocks,
        options=RefreshOptions.model_validate({"guardrails": GUARDRAILS, **options}),
    )


def in_lake(company: Company, saved: Saved, run_number: int = 2) -> list[tuple[str, ...]]:
    return saved.lake.read(company.seeded.campaign_id, run_number, "polars").rows()


def messages_to(listed: pl.DataFrame) -> list[tuple[str, str]]:
    return [
        (
            customer["customer_id"],
            f"Dear {customer['first_name']} {customer['last_name']},\n\n"
            f'your "{customer["plan"]}" plan in {customer["region"]} has something new for you: '
            "10 % off, until the end of the month.\n",
        )
        for customer in listed.rows(named=True)
    ]


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Calls of Prefect's API by this process, by method and path; an id is a star."""
    seen: Counter[str] = Counter()
    lock = Lock()
    sync, asynchronous = PrefectHttpxSyncClient.send, PrefectHttpxAsyncClient.send

    def note(request: httpx.Request) -> None:
        call = f"{request.method} {ID.sub('*', request.url.path)}"
        with lock:
            seen[call] += not UNCOUNTED.search(call)

    def send(client: PrefectHttpxSyncClient, request: httpx.Request, *a: Any, **o: Any) -> Any:
        note(request)
        return sync(client, request, *a, **o)

    def send_async(
        client: PrefectHttpxAsyncClient, request: httpx.Request, *a: Any, **o: Any
    ) -> Any:
        note(request)
        return asynchronous(client, request, *a, **o)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PrefectHttpxSyncClient, "send", send)
        patched.setattr(PrefectHttpxAsyncClient, "send", send_async)
        yield seen


@contextmanager
def logged() -> Iterator[StringIO]:
    """All that is logged, as text."""
    text, root = StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


# ---- two refreshes, one after the other ---------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """Two refreshes on the same list, and what was seen of them."""

    company: Company
    saved: Saved
    listed: pl.DataFrame
    first: RefreshResult
    second: RefreshResult
    calls: Counter[str]
    """Those of the first one."""
    log: str


@pytest.fixture(scope="module")
def story(
    reviewed_sandbox: Sandbox, prefect_server: None, tmp_path_factory: pytest.TempPathFactory
) -> Story:
    """Every 50th of its customers breaks a rule; canaries are in a name and in such a value."""
    listed = customers(250, invalid_every=50).with_columns(
        last_name=pl.col("last_name") + " canary-in-name",
        visits=pl.col("visits").replace("many", "canary-in-number"),
    )
    assert "canary-in-number" in listed["visits"]
    company = Company(reviewed_sandbox, seed.seed(reviewed_sandbox.context, SEEDED_CUSTOMERS))
    story = saved_blocks(company, listed, tmp_path_factory.mktemp("story"))
    name = {"group_name": "The same name {campaign}"}
    with logged() as log:
        with counted_calls() as calls:
            first = refresh(company, story, **name)
        second = refresh(company, story, **name)
    return Story(company, story, listed, first, second, calls, log.getvalue())


def test_refresh_brings_messages_of_list_into_lake(story: Story) -> None:
    result, saved = story.first, story.saved
    assert (result.extracted, result.accepted, result.rejected) == (250, 245, 5)
    assert (result.matched, result.new, result.orphaned) == (12, 4, 4)
    good = story.listed.filter(pl.int_range(1, 251) % 50 != 0)
    assert result.customers_in_new == good.filter(plan="student").height
    assert in_lake(story.company, saved) == messages_to(good)
    manifest = saved.lake.manifest(result.campaign_id, result.run_number)
    assert manifest is not None
    assert [(page.page, page.rows) for page in manifest.pages] == [(0, 100), (1, 100), (2, 45)]
    (part,) = manifest.parts
    assert (part.pages, part.rows, result.files) == ([0, 1, 2], 245, 1)
    assert (manifest.rows, manifest.customer_group_id) == (245, result.customer_group_id)
    assert result.quarantine is not None
    quarantine = pl.read_parquet(saved.root / result.quarantine)
    assert quarantine["row"].to_list() == [50, 100, 150, 200, 250]
    assert quarantine.columns == ["row", "identifier", "field", "code", "reason"]
    assert list((saved.root / "staging").iterdir()) == []
    assert {run.status for run in story.company.history()} == {Status.PUBLISHED}
    resource = f"nudgeflow.campaign.{result.campaign_id}"
    first, second = (
        event["payload"] for event in events_of("nudgeflow.campaign.refreshed", resource, 2)[::-1]
    )
    assert (first["campaign"], first["run_number"], first["rows"]) == (result.campaign_id, 2, 245)
    assert second["run_number"] == 3
    assert (saved.root / first["manifest"]).exists()
    assert list(result.seconds) == [
        "extract and validate",
        "upload",
        "rerun, review and publish",
        "fetch",
        "compare and hand over",
    ]


def test_second_refresh_starts_another_run(story: Story) -> None:
    first, second = story.first, story.second
    assert (first.run_number, second.run_number) == (2, 3)
    assert first.group == "The same name Welcome back"
    assert second.group.startswith("The same name Welcome back (")
    assert (second.matched, second.new, second.orphaned) == (16, 0, 0)
    assert first.run_diff == RunDiffSummary()
    assert second.run_diff == RunDiffSummary(since=2, unchanged=245)
    assert in_lake(story.company, story.saved, 3) == in_lake(story.company, story.saved)


def test_refresh_of_an_unchanged_list_is_skipped_when_asked(story: Story) -> None:
    runs = len(story.company.history())
    state = campaign_refresh(
        story.company.seeded.campaign_id,
        **story.saved.blocks,
        options=RefreshOptions(if_unchanged="skip"),
        return_state=True,
    )
    assert (state.name, state.type) == ("Unchanged", "COMPLETED")
    assert "still that of run 3" in str(state.message)
    assert "5 rows were rejected: quarantine/" in str(state.message)
    assert len(story.company.history()) == runs
    assert [*(story.saved.root / "staging").iterdir()] == []


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        ({"guardrails": {"max_rejected": 0.01}}, TooManyRejected),
        ({"plan_id": "none"}, PlanNotFound),
    ],
)
def test_unchanged_list_is_skipped_only_within_the_limits(
    story: Story, wanted: dict[str, Any], refused: type[errors.NudgeflowError]
) -> None:
    with pytest.raises(refused):
        refresh(story.company, story.saved, if_unchanged="skip", **wanted)


def test_run_that_is_not_in_the_lake_is_not_unchanged(story: Story, tmp_path: Path) -> None:
    shutil.copytree(story.saved.root, tmp_path / "lake")
    last, lake = story.second, DataLake(root=str(tmp_path / "lake"))
    campaign = CampaignRef(
        campaign_id=last.campaign_id,
        name=last.campaign,
        workspace_id=story.company.seeded.workspace_id,
        previous_run=last.run_number,
        previous_group=last.customer_group_id,
        previous_pages=3,
    )
    validated = Validated(
        accepted=Staged(path="a", rows=245, sha256="0"),
        extracted=250,
        rejected=5,
        quarantine=None,
        key="customer_id",
        fingerprint=last.fingerprint,
    )
    assert find_unchanged.fn(lake, campaign, validated) == last
    shutil.rmtree(tmp_path / "lake" / last.path)
    assert find_unchanged.fn(lake, campaign, validated) is None


def test_refresh_logs_and_stores_no_customer_data_or_secret(story: Story) -> None:
    with get_client(sync_client=True) as client:
        stored = [
            *(str(one.data) for one in all_artifacts()),
            *(str(one.parameters) for one in client.read_flow_runs(limit=200)),
        ]
    assert "Accepted 245 rows" in story.log
    seen = "".join([story.log, repr(story.first), *stored])
    assert "canary" not in seen
    seeded = story.company.seeded
    for secret in (seeded.password, seeded.api_key, seeded.api_code, "signature=", "Bearer "):
        assert secret not in seen


def test_program_makes_at_most_thirty_calls_of_prefect(story: Story) -> None:
    assert 0 < story.calls.total() <= 30, story.calls


def test_deployment_makes_at_most_thirty_calls_of_prefect(
    reviewed_company: Company, save: Save, deployed: Deployed
) -> None:
    listed = customers(250)
    saved = save(reviewed_company, listed)
    saved.lake.format = "csv"
    saved.lake.save(saved.name, overwrite=True)
    run = deployed.refresh(reviewed_company, saved)
    with counted_calls() as calls:
        assert deployed.work(run).name == "Completed"
    assert 0 < calls.total() <= 30, calls
    assert in_lake(reviewed_company, saved) == messages_to(listed)


# ---- one that goes another way ------------------------------------------------------------------


def lake_away(*arguments: object) -> None:
    raise LakeUnreachable("The lake could not be reached at messages.")


def test_refresh_is_reported_when_comparison_fails(
    reviewed_company: Company,
    save: Save,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    saved = save(reviewed_company, customers(100, invalid_every=30))
    monkeypatch.setattr("flows.run.finish.compare_messages", lake_away)
    with caplog.at_level(logging.INFO):
        result = refresh(reviewed_company, saved)
    run = flow_run_of(saved)
    artifacts = {one.key: one for one in all_artifacts() if one.flow_run_id == run.id}
    task_runs = {
        vars(one)["task_run_id"] for one in caplog.records if one.name == "prefect.task_runs"
    }
    assert run.name == "Welcome back, run 2"
    assert {"campaign: Welcome back", "workspace: Marketing"} <= {*run.tags}
    assert run.labels["nudgeflow.run_number"] == result.run_number
    assert run.labels["nudgeflow.job_uid"]
    report = artifacts[artifact_key("refresh", "Welcome back", result.campaign_id)].data
    assert isinstance(report, str)
    assert ": 97 messages, one for each customer of the list." in report
    assert "| balance | not an amount with at most the currency's decimal digits | 1 |" in report
    assert "compared with earlier ones: The lake could not be reached at messages." in report
    rerun = artifacts[artifact_key("rerun", "Welcome back", result.campaign_id)]
    assert (rerun.type, rerun.data) == ("progress", 100.0)
    (rejected,) = (key for key in artifacts if str(key).startswith("rejected-welcome-back-"))
    assert artifacts[rejected].type == "table"
    assert 10 < len(task_runs) <= 40


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


# ---- what is stopped before it has changed anything ----------------------------------------------


def check_untouched(company: Company, saved: Saved) -> None:
    """Nothing was changed at the service, nothing published to the lake."""
    assert len(company.history()) == 1
    assert company.groups() == ["First customers"]
    assert not (saved.root / "messages").exists()
    assert not list(saved.root.glob("staging/*"))


def test_refresh_changes_nothing_when_list_is_refused(
    company: Company, save: Save, subtests: pytest.Subtests
) -> None:
    saved = save(company, customers(1))
    shrunk = customers(61, invalid_every=50)
    cases: list[tuple[pl.DataFrame, dict[str, Any], str]] = [
        (customers(20).clear(), {}, "0 rows were accepted, fewer than 1"),
        (customers(20).drop("first_name"), {}, "column 'first_name' is missing"),
        (
            pl.concat([customers(20), customers(2)]),
            {},
            "2 customer identifiers occur more than once.*quarantine/",
        ),
        (
            customers(20, invalid_every=5),
            {},
            "4 of 20 rows were rejected, more than 5.0%.*quarantine/",
        ),
        (shrunk, {"guardrails": {}}, "60 customers, down from 300: it shrank by more than 30.0%"),
        (
            shrunk,
            {"guardrails": {**GUARDRAILS, "max_new_segments": 3}},
            "4 new segments, more than 3",
        ),
        (
            shrunk,
            {"guardrails": {**GUARDRAILS, "max_orphaned_segments": 3}},
            "4 segments would be left without customers, more than 3",
        ),
        (shrunk, {"strict": True}, "Row 50, field"),
    ]
    for listed, options, problem in cases:
        with subtests.test(problem):
            listed.write_csv(saved.crm_file)
            with pytest.raises((ListRefused, GuardrailHit), match=problem):
                refresh(company, saved, **options)
            check_untouched(company, saved)


def test_refresh_changes_nothing_when_campaign_is_not_ready(company: Company, save: Save) -> None:
    saved = save(company, customers(20).drop("region"))
    with pytest.raises(errors.NotFound, match="has no campaign unknown"):
        campaign_refresh("unknown", **saved.blocks)
    saved.save_account(company.account(password="wrong"))
    with pytest.raises(errors.AuthError, match="Check email, password"):
        refresh(company, saved)
    saved.save_account(company.account())
    with company.client() as client:
        fields = client.list_fields(company.seeded.workspace_id)
        client.delete_field(next(one.field_id for one in fields if one.field_name == "region"))
    with pytest.raises(ListRefused, match="no column for the campaign's variables region"):
        refresh(company, saved)
    check_untouched(company, saved)


@pytest.mark.parametrize("template", ["{campaign.__class__}", "{}", "{other}"])
def test_group_name_refuses_unknown_placeholders(template: str) -> None:
    with pytest.raises(ValidationError, match="only {campaign} and {run}"):
        RefreshOptions(group_name=template)


def test_options_refuse_unknown_names() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        RefreshOptions.model_validate({"format": "csv"})
