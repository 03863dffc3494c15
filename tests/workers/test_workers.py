"""Refreshes on process workers: suspended, cancelled, started twice at one moment."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.states import Cancelling

from blocks.storage.files import DRAFT
from flows.review import resume_reviewed
from nudgescribe.contract import Status
from tests.conftest import Company, Save, Saved, customers
from tests.support.clock import until
from tests.support.deployed import (
    CHANGING,
    Deployed,
    Workers,
    becomes,
    changes,
    flow_run,
    on_pool,
    process_of,
    state_of,
    until_it_ends,
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


def logged(run: UUID) -> str:
    with get_client(sync_client=True) as client:
        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])))
    return "\n".join(line.message for line in lines)


def is_whole(company: Company, saved: Saved, rows: int) -> bool:
    manifest = saved.lake.manifest(company.seeded.campaign_id, 2)
    return manifest is not None and manifest.rows == rows


def once(company: Company) -> None:
    """One group was made, filled, run on and published."""
    assert changes(company) == list(CHANGING)
    assert [run.run_number for run in company.history()] == [2, 1]


def test_suspended_refresh_has_no_process_and_another_worker_continues_it(
    company: Company, save: Save, workers: Workers, refreshes: Deployed
) -> None:
    saved = save(company, customers(250))
    workers.start()
    run = refreshes.refresh(company, saved, review="suspend")
    becomes(run, "Suspended")
    until_it_ends(process_of(saved.lake, company.seeded.campaign_id))
    workers.kill()
    company.sandbox.approve(company.seeded.campaign_id).raise_for_status()
    workers.start()
    becomes(on_pool(resume_reviewed).plan({}), "Completed")
    becomes(run, "Completed")
    assert is_whole(company, saved, 250)
    once(company)


Slow = Callable[[str], None]


@pytest.fixture
def slow(company: Company) -> Iterator[Slow]:
    """One endpoint takes its time, and no other."""

    def only(endpoint: str) -> None:
        company.sandbox.no_faults()
        company.sandbox.fault(endpoint, delay=6)

    yield only
    company.sandbox.no_faults()


def test_refresh_cancelled_at_any_step_leaves_nothing_and_is_continued(
    company: Company,
    save: Save,
    workers: Workers,
    refreshes: Deployed,
    slow: Slow,
) -> None:
    saved = save(company, customers(250))
    workers.start()

    def cancelled(run: UUID) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelling())
        becomes(run, "Cancelled")
        until_it_ends(process_of(saved.lake, company.seeded.campaign_id))
        # Prefect's worker keeps folders of its own.
        left = {each.name for each in workers.temporary.iterdir()}
        assert all("prefect" in name or name == "runner_storage" for name in left)
        assert not list(saved.root.rglob(f"{DRAFT}*"))

    slow("/v1/campaign/rerun/messages")
    comparing = refreshes.refresh(company, saved)
    until(lambda: list(saved.root.glob("refreshes/*/*/03-validated.json")))
    cancelled(comparing)
    assert list((saved.root / "staging").iterdir()) == []
    slow("/v1/customer/check")
    uploading = refreshes.refresh(company, saved)
    until(lambda: len(company.groups()) == 2)
    cancelled(uploading)
    slow("/v1/messages/fetch")
    reviewed = refreshes.refresh(company, saved)
    until(lambda: "Ready for review" in logged(reviewed))
    cancelled(reviewed)
    until(lambda: "Run 2" in (state_of(reviewed).message or ""))
    told = f"Run 2 of campaign {company.seeded.campaign_id} cannot be stopped and goes on"
    assert told in (state_of(reviewed).message or "")
    until(lambda: told in logged(reviewed))
    assert flow_run(reviewed).labels["nudgeflow.run_number"] == 2
    company.sandbox.approve(company.seeded.campaign_id).raise_for_status()
    fetching = refreshes.refresh(company, saved)
    until(lambda: company.history()[0].status == Status.PUBLISHED)
    until(lambda: "is published" in logged(fetching))
    cancelled(fetching)
    company.sandbox.no_faults()
    last = refreshes.refresh(company, saved)
    becomes(last, "Completed")
    assert is_whole(company, saved, 250)
    assert list((saved.root / "staging").iterdir()) == []
    assert len(company.groups()) == 2
    assert [run.run_number for run in company.history()] == [2, 1]
    assert changes(company).count("POST /v1/campaign/rerun/initiate") == 1


def test_refresh_proceeds_once_when_two_workers_start_it_at_one_moment(
    company: Company, save: Save, workers: Workers, refreshes: Deployed
) -> None:
    saved = save(company, customers(250))
    runs = [refreshes.refresh(company, saved, overlap="skip") for _ in range(2)]
    for _ in runs:
        workers.start()
    until(lambda: any(state_of(run).is_final() for run in runs))
    (other,) = [run for run in runs if not state_of(run).is_final()]
    (skipped,) = [state_of(run) for run in runs if run != other]
    assert skipped.name == "Skipped"
    said = (
        f"Flow run {other}, Running, has a refresh of campaign {company.seeded.campaign_id} open."
    )
    assert (skipped.message or "").startswith(said)
    until(lambda: company.history()[0].status == Status.READY_FOR_REVIEW)
    company.sandbox.approve(company.seeded.campaign_id).raise_for_status()
    becomes(other, "Completed")
    assert is_whole(company, saved, 250)
    once(company)
