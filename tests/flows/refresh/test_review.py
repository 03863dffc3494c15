"""The review gate: suspended without a process, resumed once people have approved."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.flow_runs import resume_flow_run
from prefect.types import KeyValueLabels
from sqlalchemy import select

from blocks.storage.manifest import campaign_partition
from flows.options import RefreshOptions
from flows.publish import NothingToPublish, NotReviewed, publish_campaign
from flows.refresh import campaign_refresh
from flows.review import ReviewsNotChecked, resume_reviewed
from flows.run.review_gate import SuspensionImpossible
from nudgescribe import contract
from nudgescribe.contract import Status
from nudgescribe.errors import ServerError
from sandbox.api.security import hash_password
from sandbox.data.models import User
from tasks.customers.guardrails import Guardrails
from tasks.journal.entries import Series, Step
from tasks.refresh.history import History
from tasks.refresh.report import RefreshResult
from tasks.refresh.standing import Review
from tasks.ui.signals import REVIEW_UNTIL
from tests.conftest import Company, Save, Saved, Through, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import (
    CHANGING,
    Deployed,
    changes,
    deployed,
    flow_run,
    retry,
    state_of,
)
from tests.support.response_tamperer import Changed

__all__ = ["deployed"]

Suspend = Callable[..., tuple[Saved, UUID]]


@pytest.fixture
def suspend(company: Company, save: Save, deployed: Deployed) -> Suspend:
    """Refreshes a campaign until its review."""

    def suspended(**options: object) -> tuple[Saved, UUID]:
        saved = save(company, customers(120))
        run = deployed.refresh(company, saved, review="suspend", **options)
        state = deployed.work(run)
        assert state.name == "Suspended", state.message
        return saved, run

    return suspended


def approve(company: Company) -> None:
    company.sandbox.approve(company.seeded.campaign_id).raise_for_status()


def in_lake(company: Company, saved: Saved) -> bool:
    return saved.lake.manifest(company.seeded.campaign_id, 2) is not None


def staged(saved: Saved) -> list[str]:
    return [path.name for path in (saved.root / "staging").iterdir()]


def in_time(company: Company, saved: Saved, run: UUID, until: str) -> None:
    """Moves the deadline of a review."""
    labels: KeyValueLabels = {REVIEW_UNTIL: until}
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(run, labels)
    partition = campaign_partition(company.seeded.campaign_id)
    journal = History(saved.lake.files, partition).journal(1)
    number, _ = journal.newest(Series.REVIEW, Review)
    assert journal.append(Series.REVIEW, number + 1, Review(until=datetime.fromisoformat(until)))


def page_of(run: UUID) -> str:
    """What the reviewers are shown."""
    artifacts = [one for one in all_artifacts() if one.flow_run_id == run]
    (page,) = [one.data for one in artifacts if (one.key or "").startswith("review-")]
    return str(page)


def test_review_suspends_until_approved(
    company: Company, suspend: Suspend, deployed: Deployed
) -> None:
    saved, run = suspend()
    page = page_of(run)
    assert "| segments new, message to review | 4 |" in page
    assert "**plan = student, region = " in page
    assert 'your "student" plan in' in page
    assert "- plan = " in page
    assert "the campaign's page in the platform" in page
    for row in customers(120).rows(named=True):
        assert row["last_name"] not in page
    assert str(run) not in resume_reviewed()
    assert state_of(run).name == "Suspended"
    # Other accounts' reviews are looked at all the same.
    saved.save_account(company.account(password="wrong"))
    with pytest.raises(ReviewsNotChecked, match=company.seeded.campaign_id):
        resume_reviewed()
    saved.save_account(company.account())
    # What becomes of the CRM meanwhile does not matter.
    saved.crm_file.unlink()
    approve(company)
    assert str(run) in resume_reviewed()
    assert str(run) not in resume_reviewed()
    state = deployed.work(run)
    assert state.name == "Completed", state.message
    assert in_lake(company, saved)
    assert changes(company) == [*CHANGING]
    assert [one.run_number for one in company.history()] == [2, 1]
    assert len(company.groups()) == 2
    assert staged(saved) == []


def test_report_of_a_resumed_refresh_tells_seconds_of_the_whole(
    company: Company, suspend: Suspend, deployed: Deployed
) -> None:
    saved, run = suspend()
    approve(company)
    assert str(run) in resume_reviewed()
    resumed = datetime.now(UTC)
    assert deployed.work(run).name == "Completed"
    partition = campaign_partition(company.seeded.campaign_id)
    history = History(saved.lake.files, partition)
    begun = history.journal(1).entries()[Step.CLAIMED].written_at
    result = history.last_result()
    assert result
    assert [*result.seconds] == [
        "extract and validate",
        "upload",
        "rerun, review and publish",
        "fetch",
        "compare and hand over",
    ]
    assert sum(result.seconds.values()) > (resumed - begun).total_seconds()


def test_review_is_resumed_after_the_password_was_rotated(
    company: Company, save: Save, deployed: Deployed, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(company.seeded.password)
    saved = save(company, customers(120))
    saved.save_account(company.account(password=f"file:{file}"))
    run = deployed.refresh(company, saved, review="suspend")
    assert deployed.work(run).name == "Suspended"
    with company.sandbox.context.store.write() as session:
        user = session.scalars(select(User).where(User.email == company.seeded.email)).one()
        user.password_hash = hash_password("the new one")
    approve(company)
    with pytest.raises(ReviewsNotChecked, match=company.seeded.campaign_id):
        resume_reviewed()
    file.write_text("the new one\n")
    assert str(run) in resume_reviewed()
    state = deployed.work(run)
    assert state.name == "Completed", state.message
    assert in_lake(company, saved)


def test_review_whose_form_was_never_saved_is_resumed_once_approved(
    company: Company, suspend: Suspend, deployed: Deployed
) -> None:
    """Its worker was killed between Prefect's two calls of a suspension."""
    saved, run = suspend()
    approve(company)
    keyset = state_of(run).state_details.run_input_keyset
    assert keyset
    with get_client(sync_client=True) as client:
        client.delete_flow_run_input(run, keyset["schema"])
    assert str(run) in resume_reviewed()
    assert deployed.work(run).name == "Completed"
    assert in_lake(company, saved)


def test_review_goes_by_what_people_answer(
    company: Company, suspend: Suspend, deployed: Deployed
) -> None:
    saved, run = suspend()
    resume_flow_run(run, run_input={"decision": "publish now", "note": "too early"})
    assert deployed.work(run).name == "Suspended"
    approve(company)
    resume_flow_run(run, run_input={"decision": "stop here", "note": "wrong list"})
    state = deployed.work(run)
    assert (state.type.value, state.name) == ("FAILED", "ReviewStopped")
    assert state.message is not None
    assert "Run 2 was stopped: wrong list" in state.message
    assert company.history()[0].status == Status.READY_TO_PUBLISH
    assert staged(saved) == [str(run)]
    retry(run)
    assert deployed.work(run).name == "Completed"
    assert in_lake(company, saved)


def test_review_is_overdue_after_deadline_unless_approved(
    company: Company, suspend: Suspend, deployed: Deployed
) -> None:
    saved, run = suspend()
    in_time(company, saved, run, "2026-11-01T00:00:00+00:00")
    assert str(run) in resume_reviewed()
    state = deployed.work(run)
    assert (state.type.value, state.name) == ("FAILED", "ReviewOverdue")
    assert state.message is not None
    assert "not approved by 2026-11-01 00:00 UTC; it is Ready for review." in state.message
    retry(run)
    assert deployed.work(run).name == "Suspended"
    assert "2026-11-01" not in str(flow_run(run).labels[REVIEW_UNTIL])
    in_time(company, saved, run, "2026-11-01T00:00:00+00:00")
    approve(company)
    assert str(run) in resume_reviewed()
    assert deployed.work(run).name == "Completed"
    assert in_lake(company, saved)


def test_review_is_skipped_when_no_segment_is_new(
    company: Company, save: Save, deployed: Deployed
) -> None:
    saved = save(company, customers(120).filter(plan="basic"))
    run = deployed.refresh(company, saved, review="suspend")
    assert deployed.work(run).name == "Completed"
    assert in_lake(company, saved)


def test_suspension_is_refused_without_deployment(company: Company, save: Save) -> None:
    saved = save(company, customers(20))
    with pytest.raises(SuspensionImpossible, match="set options.review to wait or stop"):
        campaign_refresh(
            company.seeded.campaign_id, **saved.blocks, options=RefreshOptions(review="suspend")
        )
    assert not (saved.root / "refreshes").exists()


def test_review_of_a_run_in_unknown_state_is_not_passed_over(
    company: Company, suspend: Suspend, through: Through, caplog: pytest.LogCaptureFixture
) -> None:
    suspend()
    through(
        Changed(contract.RERUN_HISTORY, lambda body: body["runs"][0].update(status="Cancelled"))
    )
    with pytest.raises(ReviewsNotChecked, match=company.seeded.campaign_id):
        resume_reviewed()
    assert f"Run 2 of campaign {company.seeded.campaign_id} is in state 'Cancelled'" in caplog.text


def test_wait_for_review_ends_at_deadline_and_continues_when_retried(
    company: Company, save: Save
) -> None:
    saved = save(company, customers(120))
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1), review_minutes=0.001)
    state = campaign_refresh(
        company.seeded.campaign_id, **saved.blocks, options=options, return_state=True
    )
    assert state.name == "ReviewOverdue"
    approve(company)
    result = campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)
    assert isinstance(result, RefreshResult)
    assert (result.run_number, result.rows) == (2, 120)
    assert len(company.groups()) == 2


def test_refresh_that_has_started_no_rerun_is_not_published(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(company, customers(120))
    campaign = company.seeded.campaign_id
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1))

    def unreachable(*_: object) -> None:
        raise ServerError("Nudgescribe answered 503.")

    with monkeypatch.context() as patched:
        patched.setattr("flows.refresh.initiate_rerun", unreachable)
        with pytest.raises(ServerError):
            campaign_refresh(campaign, **saved.blocks, options=options)
    with pytest.raises(NothingToPublish, match=f"{campaign} has started a rerun"):
        publish_campaign(campaign, saved.account, saved.lake)


def test_stopped_refresh_is_published_later(company: Company, save: Save) -> None:
    saved = save(company, customers(120))
    campaign = company.seeded.campaign_id
    begun = {"account": saved.account, "lake": saved.lake}
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1), review="stop")
    with pytest.raises(NothingToPublish):
        publish_campaign(campaign, **begun)
    state = campaign_refresh(campaign, **saved.blocks, options=options, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Stopped")
    assert state.message is not None
    assert "Run 2 is Ready for review" in state.message
    with pytest.raises(NotReviewed, match="Run 2 of campaign .* is Ready for review"):
        publish_campaign(campaign, **begun)
    approve(company)
    result = publish_campaign(campaign, **begun)
    assert isinstance(result, RefreshResult)
    assert (result.rows, result.new) == (120, 4)
    assert staged(saved) == []
    with pytest.raises(NothingToPublish):
        publish_campaign(campaign, **begun)
