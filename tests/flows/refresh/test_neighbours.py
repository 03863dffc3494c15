"""A refresh among others: other people change its group, move its lake, leave it half-way."""

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Failed
from prefect.types import KeyValueLabels
from prefect.utilities.callables import parameter_schema
from sqlalchemy import delete, update

from blocks import DataLake, rerun
from blocks.rerun import RunRemoved
from blocks.storage.errors import LakeError
from blocks.storage.files import Files
from flows.abandon import abandon_refresh
from flows.customers import sync_customers
from flows.export import export_messages
from flows.options import ExportOptions, RefreshOptions, SyncOptions
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from flows.retention import RetentionOptions, lake_retention
from flows.review import resume_reviewed
from nudgescribe import contract, rfc4180
from nudgescribe.contract import Status
from nudgescribe.errors import NudgeflowError
from sandbox.data.models import Campaign, Charged, Message, Run
from tasks.campaigns import RunOpen
from tasks.customers.group_check import GroupChanged
from tasks.customers.guardrails import Guardrails, ListGuardrails
from tasks.ui.signals import REVIEW_UNTIL
from tests.conftest import Company, Save, Saved, Through, customers
from tests.support.artifacts import all_artifacts
from tests.support.clock import until
from tests.support.deployed import Deployed, changes, deploy, deployed, retry
from tests.support.response_tamperer import ResponseTamperer

__all__ = ["deployed"]

PUBLISH = "POST /v1/messages/publish"
REUSE = RefreshOptions(
    guardrails=Guardrails(max_shrink=1), group="reuse", group_name="All customers"
)


@pytest.fixture
def saved(company: Company, save: Save) -> Saved:
    return save(company, customers(120))


def suspended(company: Company, saved: Saved, deployed: Deployed, **options: object) -> UUID:
    run = deployed.refresh(company, saved, review="suspend", **options)
    state = deployed.work(run)
    assert state.name == "Suspended", state.message
    return run


def approve(company: Company) -> None:
    company.sandbox.approve(company.seeded.campaign_id).raise_for_status()


def approve_and_resume(company: Company, deployed: Deployed, run: UUID) -> State[Any]:
    approve(company)
    assert str(run) in resume_reviewed()
    return deployed.work(run)


def erase(company: Company, count: int) -> None:
    """Erases customers from the group of the newest run."""
    place = company.seeded.workspace_id, company.history()[0].customer_group_id or ""
    with company.client() as client:
        ids = [one.customer_id for one in client.customers(*place)]
        assert client.delete_customers(*place, ids[:count]) == count


# ---- the group --------------------------------------------------------------------------------


def test_customers_who_left_in_the_review_are_told_and_the_others_are_published(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed)
    erase(company, 3)
    state = approve_and_resume(company, deployed, run)
    assert state.name == "Completed", state.message
    frame = saved.lake.read(company.seeded.campaign_id, 2, "polars")
    assert len(frame) == 117
    pages = [str(one.data) for one in all_artifacts() if one.flow_run_id == run]
    assert any("| removed from the group since, without a message | 3 |" in page for page in pages)


def test_stranger_in_the_group_stops_the_publication(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed)
    place = company.seeded.workspace_id, company.history()[0].customer_group_id or ""
    erase(company, 1)
    with company.client() as client:
        client.upload_customers(*place, rfc4180.write(customers(121).tail(1)))
    state = approve_and_resume(company, deployed, run)
    assert (state.type.value, PUBLISH in changes(company)) == ("FAILED", False)
    assert "1 of its 120 customers are not in the list" in str(state.message)
    assert "abandon-refresh" in str(state.message)


def refill(company: Company, group: str) -> None:
    """Makes a group that of another list, of as many customers."""
    place = company.seeded.workspace_id, group
    with company.client() as client:
        client.delete_customers(*place, customers(120)["customer_id"].to_list())
        client.upload_customers(*place, rfc4180.write(customers(240).tail(120)))


@pytest.mark.parametrize("when", ["before the rerun", "during the rerun"])
def test_reused_group_that_has_changed_is_not_published(
    reviewed_company: Company, save: Save, through: Through, when: str
) -> None:
    company, changed = reviewed_company, list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        before = request.url.path == contract.CUSTOMERS_PAGES and when == "before the rerun"
        during = request.url.path == contract.RERUN_INITIATE and when == "during the rerun"
        answered = real.handle_request(request)
        if (before or during) and not changed and uploaded:
            body = json.loads(request.read())
            changed.append(body.get("new_customer_group_id") or body["customer_group_id"])
            refill(company, changed[0])
        uploaded.extend(["x"] if request.url.path == contract.CUSTOMERS_CHECK else [])
        return answered

    uploaded, saved = list[str](), save(company, customers(120))
    through(ResponseTamperer(answer=answer))
    told = pytest.raises(GroupChanged, match="Group 'All customers' has changed since the upload")
    with httpx.HTTPTransport() as real, told:
        campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=REUSE)
    assert changed
    assert PUBLISH not in changes(company)
    assert ("POST /v1/campaign/rerun/initiate" in changes(company)) == (when != "before the rerun")


def test_reused_group_is_left_alone_until_its_refresh_is_over(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed, group="reuse", group_name="All customers")
    options = SyncOptions(guardrails=ListGuardrails(max_shrink=1))
    place = company.seeded.workspace_id, "All customers"
    state = sync_customers(*place, **saved.blocks, options=options, return_state=True)
    assert (state.name, str(run) in str(state.message)) == ("Skipped", True)
    state = approve_and_resume(company, deployed, run)
    assert state.name == "Completed", state.message
    changes = sync_customers(*place, **saved.blocks, options=options)
    assert changes.unchanged == 120


# ---- the list and the lake --------------------------------------------------------------------


def tidy_old_lists(saved: Saved) -> None:
    old = datetime.now(UTC).timestamp() - 8.01 * 86400
    for path in (saved.root / "staging").rglob("*"):
        os.utime(path, (old, old))
    lake_retention(saved.lake, saved.account, options=RetentionOptions(dry_run=False))
    assert not [*(saved.root / "staging").iterdir()]


def test_overdue_refresh_is_published_without_its_list(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Failed(name="ReviewOverdue"), force=True)
    tidy_old_lists(saved)
    approve(company)
    publish_campaign(company.seeded.campaign_id, saved.account, saved.lake)
    assert len(saved.lake.read(company.seeded.campaign_id, 2)) == 120


def test_reused_group_without_its_list_is_not_published(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed, group="reuse", group_name="All customers")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Failed(name="ReviewOverdue"), force=True)
    for file in (saved.root / "staging").rglob("*.parquet"):
        file.unlink()
    approve(company)
    with pytest.raises(GroupChanged, match="cannot be compared"):
        publish_campaign(company.seeded.campaign_id, saved.account, saved.lake)
    assert PUBLISH not in changes(company)


def test_lake_that_was_moved_in_the_review_is_refused(
    company: Company, saved: Saved, deployed: Deployed, tmp_path: Path
) -> None:
    run = suspended(company, saved, deployed)
    customers(150).tail(120).write_csv(saved.crm_file)
    moved = DataLake(root=str(tmp_path / "new-lake"))
    moved.save(saved.name, overwrite=True)
    before = changes(company)
    state = approve_and_resume(company, deployed, run)
    assert state.type.value == "FAILED"
    assert f"in lake {saved.lake.root}; its lake block has root {moved.root}" in str(state.message)
    assert changes(company) == before


def test_group_of_a_refresh_that_the_lake_does_not_know_is_not_filled(
    company: Company, saved: Saved, deployed: Deployed, tmp_path: Path
) -> None:
    run = deployed.refresh(company, saved, review="suspend")
    with company.client() as client:
        client.create_group(company.seeded.workspace_id, "Ours", f"Nudgeflow refresh {run}")
    state = deployed.work(run)
    assert state.type.value == "FAILED"
    assert f"lake {saved.lake.root} knows nothing of it" in str(state.message)
    assert changes(company) == ["PUT /v1/cg"]


def publish_by_hand(company: Company, count: int) -> None:
    """What people do in the platform: a rerun on a list of so many, published."""
    campaign_id = company.seeded.campaign_id
    with company.client() as client:
        group = client.create_group(company.seeded.workspace_id, "Ours").customer_group_id
        everybody = rfc4180.write(customers(count))
        client.upload_customers(company.seeded.workspace_id, group, everybody)
        client.initiate_rerun(campaign_id, group)
        company.settle(client)
        approve(company)
        client.publish(campaign_id)
        until(lambda: client.count_message_pages(campaign_id) == count // 100)


def test_run_after_one_that_was_never_exported_is_taken(company: Company, saved: Saved) -> None:
    campaign_id = company.seeded.campaign_id
    for page in company.page_file().parent.iterdir():
        page.unlink()
    publish_by_hand(company, 300)
    with company.client() as client:
        assert client.count_message_pages(campaign_id, 1) == 0
    (exported,) = export_messages(campaign_id, saved.account, saved.lake)
    assert (exported.run_number, exported.rows) == (2, 300)


def test_pages_of_the_run_before_are_not_taken(company: Company, saved: Saved) -> None:
    campaign_id = company.seeded.campaign_id
    for page in company.page_file().parent.iterdir():
        os.utime(page, (page.stat().st_mtime - 60,) * 2)  # a store tells seconds
    publish_by_hand(company, 300)
    with company.sandbox.context.store.write() as session:  # the new pages are not in place yet
        session.get_one(Campaign, campaign_id).exported_run = 1
    quick = ExportOptions(export_minutes=0.001)
    places = {"account": saved.account, "lake": saved.lake}
    with pytest.raises(NudgeflowError, match="or still those of run 1"):
        export_messages(campaign_id, **places, options=quick)
    assert saved.lake.manifest(campaign_id, 2) is None


def test_run_in_the_lake_is_written_again_when_asked(company: Company, saved: Saved) -> None:
    campaign_id, places = company.seeded.campaign_id, (saved.account, saved.lake)
    (first,) = export_messages(campaign_id, *places)
    (same,) = export_messages(campaign_id, *places)
    (again,) = export_messages(campaign_id, *places, options=ExportOptions(rewrite=True))
    assert [first.manifest, same.manifest] == [first.manifest] * 2
    assert again.manifest.endswith("_manifest-00001.json")
    assert len(saved.lake.read(campaign_id, 1)) == 300


def unmount(saved: Saved) -> None:
    """Another store is at the lake's root now: an empty one."""
    saved.root.rename(saved.root.with_name("unmounted"))


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("nth", [1, 2])
def test_lake_that_is_missing_after_the_review_is_refused_before_anything(
    company: Company, saved: Saved, deployed: Deployed, published: bool, nth: int
) -> None:
    if nth == 2:
        deployed.work(deployed.refresh(company, saved, review="stop"))
        approve(company)
        publish_campaign(company.seeded.campaign_id, saved.account, saved.lake)
        moved = customers(120).with_columns(plan=pl.lit("never seen"))
        moved.write_csv(saved.crm_file)
    run = suspended(company, saved, deployed)
    unmount(saved)
    approve(company)
    with company.client() as client:
        if published:
            client.publish(company.seeded.campaign_id)
    before = changes(company)
    for _ in range(2):
        retry(run)
        state = deployed.work(run)
        assert f"lake {saved.root} knows nothing of it. Mount" in str(state.message)
    assert changes(company) == before


def test_earlier_group_of_the_flow_run_that_the_lake_does_not_know_is_told(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = deployed.refresh(company, saved, review="suspend")
    with company.client() as client:
        client.create_group(company.seeded.workspace_id, "Ours", f"Nudgeflow refresh {run}-3")
    state = deployed.work(run)
    assert f"group of refresh {run}-3 is at Nudgescribe already" in str(state.message)
    assert changes(company) == ["PUT /v1/cg"]


# ---- what is gone at the service --------------------------------------------------------------


def remove_run(company: Company) -> None:
    """Takes run 2 out of the platform."""
    campaign_id = company.seeded.campaign_id
    with company.sandbox.context.store.write() as session:
        for kind in (Message, Run, Charged):
            newest = (kind.campaign_id == campaign_id, kind.run_number == 2)
            session.execute(delete(kind).where(*newest))
        before = update(Message).where(Message.campaign_id == campaign_id)
        session.execute(before.values(archived=False))
        campaign = session.get_one(Campaign, campaign_id)
        campaign.status, campaign.current_run = Status.PUBLISHED, 1


@pytest.mark.parametrize("by", ["retry", "next refresh", "publish-campaign"])
def test_refresh_whose_run_was_removed_is_over_and_the_next_begins_anew(
    company: Company, saved: Saved, deployed: Deployed, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(rerun, "PATIENCE_SECONDS", 0)
    run = deployed.refresh(company, saved, review="stop")
    assert deployed.work(run).name == "Stopped"
    remove_run(company)
    told = "is not in its history, after 0 seconds. It was removed in the platform"
    if by == "publish-campaign":
        with pytest.raises(RunRemoved, match=told):
            publish_campaign(company.seeded.campaign_id, saved.account, saved.lake)
    else:
        run = run if by == "retry" else deployed.refresh(company, saved, review="stop")
        retry(run)
        assert told in str(deployed.work(run).message)
    state = deployed.work(deployed.refresh(company, saved, review="stop"))
    assert (state.name, [one.run_number for one in company.history()]) == ("Stopped", [2, 1])


def test_group_deleted_in_the_review_is_told_with_the_command_that_ends_the_refresh(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed)
    with company.client() as client:
        client.delete_group(company.history()[0].customer_group_id or "")
    state = approve_and_resume(company, deployed, run)
    command = "prefect deployment run abandon-refresh/abandon-refresh"
    assert f"cannot go on: `{command}" in str(state.message)
    assert PUBLISH not in changes(company)
    abandon_refresh(company.seeded.campaign_id, saved.account, saved.lake, "Ada", "no group")


def delete_campaign(company: Company) -> None:
    campaign_id = company.seeded.campaign_id
    with company.sandbox.context.store.write() as session:
        for kind in (Message, Run, Charged):
            session.execute(delete(kind).where(kind.campaign_id == campaign_id))
        session.execute(delete(Campaign).where(Campaign.id == campaign_id))


def test_refresh_of_a_deleted_campaign_is_resumed_and_can_be_abandoned(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed)
    delete_campaign(company)
    assert str(run) in resume_reviewed()
    assert "abandon-refresh/abandon-refresh" in str(deployed.work(run).message)
    place = company.seeded.campaign_id, saved.account, saved.lake
    left = abandon_refresh(*place, "Ada", "deleted")
    assert left.startswith("Its state at Nudgescribe is unknown: Account")
    assert abandon_refresh(*place, "Ada", "deleted") == left


def test_review_past_its_deadline_ends_whatever_the_service_says(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed)
    past: KeyValueLabels = {REVIEW_UNTIL: "2026-01-01T00:00:00+00:00"}
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(run, past)
    saved.save_account(company.account(password="wrong"))
    assert str(run) in resume_reviewed()
    assert "Check email, password" in str(deployed.work(run).message)
    left = abandon_refresh(company.seeded.campaign_id, saved.account, saved.lake, "Ada", "left us")
    assert left.startswith("Its state at Nudgescribe is unknown: ")


# ---- the end of a refresh that cannot be finished ---------------------------------------------


def test_abandoned_refresh_ends_and_its_run_is_told_until_people_deal_with_it(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    run = suspended(company, saved, deployed)
    campaign_id = company.seeded.campaign_id
    left = abandon_refresh(campaign_id, saved.account, saved.lake, "Ada", "a wrong list")
    assert left.startswith(f"Run 2 of campaign {campaign_id} is Ready for review. Publish it or")
    assert not [*(saved.root / "staging").iterdir()]
    saved.crm_file.rename(saved.crm_file.with_suffix(".old"))  # nothing is extracted
    for _ in range(2):
        with pytest.raises(RunOpen, match="abandoned by Ada: a wrong list.*Publish it or remove"):
            campaign_refresh(campaign_id, **saved.blocks)
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run).state_name == "Cancelled"
    saved.crm_file.with_suffix(".old").rename(saved.crm_file)
    approve(company)
    with company.client() as client:
        client.publish(campaign_id)
    state = deployed.work(deployed.refresh(company, saved, review="stop"))
    assert (state.name, [one.run_number for one in company.history()]) == ("Stopped", [3, 2, 1])


def test_command_of_a_message_does_what_it_says(
    company: Company, saved: Saved, deployed: Deployed
) -> None:
    # The command says which account and lake: theirs are not named main.
    published, abandoned = (
        deploy(
            flow,
            flow.name,
            parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        )
        for flow in (publish_campaign, abandon_refresh)
    )
    stopped = deployed.work(deployed.refresh(company, saved, review="stop"))
    skipped = deployed.work(deployed.refresh(company, saved, overlap="skip"))
    assert (stopped.name, skipped.name) == ("Stopped", "Skipped")
    approve(company)
    assert published.work(told_run(stopped.message)).name == "Completed"
    assert company.history()[0].status == Status.PUBLISHED
    deployed.work(deployed.refresh(company, saved, review="stop"))
    skipped = deployed.work(deployed.refresh(company, saved, overlap="skip"))
    assert abandoned.work(told_run(skipped.message)).name == "Completed"


def told_run(message: str | None) -> UUID:
    """The flow run that the command in a message creates."""
    (command,) = re.findall(r"`prefect (deployment run [^`]+)`", message or "")
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    prefect = [sys.executable, "-m", "prefect", *shlex.split(command)]
    done = subprocess.run(prefect, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (created,) = re.findall(r"UUID: ([0-9a-f-]{36})", done.stdout)
    return UUID(created)


# ---- a lake that is lost when the rerun starts ------------------------------------------------


def lose_note(company: Company, saved: Saved, monkeypatch: pytest.MonkeyPatch, noted: bool) -> None:
    """A refresh that starts its rerun in the very moment in which the lake refuses all."""
    real = Files.create

    def create(files: Files, path: str, *content: Any, **options: Any) -> None:
        name = path.rpartition("/")[2]
        if name == "07-initiated.json" or (name.startswith("problem-") and not noted):
            raise LakeError(f"The lake refuses {path}: ExpiredToken.")
        real(files, path, *content, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Files, "create", create)
        assert refresh(company, saved).name == "Failed"
    assert [one.run_number for one in company.history()] == [2, 1]


def refresh(company: Company, saved: Saved) -> State[Any]:
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1), review="stop")
    return campaign_refresh(
        company.seeded.campaign_id, **saved.blocks, options=options, return_state=True
    )


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "not noted"])
def test_rerun_whose_note_was_lost_is_continued_by_the_next_refresh(
    company: Company, saved: Saved, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    lose_note(company, saved, monkeypatch, noted)
    state = refresh(company, saved)
    assert (state.name, [one.run_number for one in company.history()]) == ("Stopped", [2, 1])
    approve(company)
    publish_campaign(company.seeded.campaign_id, saved.account, saved.lake)
    assert len(saved.lake.read(company.seeded.campaign_id, 2)) == 120


@pytest.mark.parametrize("tidied", [True, False], ids=["tidied", "in time"])
def test_rerun_whose_note_was_lost_is_published(
    company: Company, saved: Saved, monkeypatch: pytest.MonkeyPatch, tidied: bool
) -> None:
    lose_note(company, saved, monkeypatch, noted=False)
    if tidied:
        tidy_old_lists(saved)
    until(lambda: company.history()[0].status != Status.PROCESSING)
    approve(company)
    publish_campaign(company.seeded.campaign_id, saved.account, saved.lake)
    assert len(saved.lake.read(company.seeded.campaign_id, 2)) == 120
