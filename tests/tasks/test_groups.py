"""The group's tasks where something goes wrong between here and the service."""

from collections.abc import Callable
from pathlib import Path

import httpx
import polars as pl
import pytest

from nudgescribe import errors
from tasks import groups as tasks
from tasks.campaigns import CampaignRef, NotCurrent, Refresh, RunRef, publish_campaign
from tasks.staging import Staged, StagingLost, describe, local_copy
from tests.conftest import Company, Save, Saved, Through, customers
from tests.faults import Fault, FaultyTransport

GROUPS = "/v1/cg"
UPLOAD = "/v1/customer/check"


def campaign_of(company: Company) -> CampaignRef:
    return CampaignRef(
        campaign_id=company.seeded.campaign_id,
        name="Welcome back",
        workspace_id=company.seeded.workspace_id,
        previous_run=1,
        previous_pages=3,
    )


@pytest.fixture
def saved(company: Company, save: Save) -> Saved:
    return save(company, customers(30))


@pytest.fixture
def create(company: Company, saved: Saved, refresh: Refresh) -> Callable[[], tasks.GroupRef]:
    template = "{campaign} {run:%Y-%m-%d %H:%M}"
    return lambda: tasks.create_group.fn(saved.name, campaign_of(company), template, refresh)


def test_a_group_is_named_after_campaign_and_planned_time(
    create: Callable[[], tasks.GroupRef],
) -> None:
    assert create().name == "Welcome back 2026-11-21 06:30"


def test_a_refresh_makes_one_group(company: Company, create: Callable[[], tasks.GroupRef]) -> None:
    assert create() == create()
    assert len(company.groups()) == 2


@pytest.mark.parametrize("lost", [httpx.Response(502), httpx.ReadTimeout])
def test_a_group_whose_answer_is_lost_is_found_again(
    company: Company, create: Callable[[], tasks.GroupRef], through: Through, lost: Fault
) -> None:
    # Calls to the path: look for an earlier group, create, look again.
    through(FaultyTransport(after={GROUPS: [None, lost]}))
    assert create().name in company.groups()
    assert len(company.groups()) == 2


def test_a_group_that_was_not_made_is_an_error(
    company: Company, create: Callable[[], tasks.GroupRef], through: Through
) -> None:
    through(FaultyTransport({GROUPS: [None, httpx.ConnectError]}))
    with pytest.raises(errors.ConnectionFailed):
        create()
    assert company.groups() == ["First customers"]


def test_a_group_refused_for_another_reason_is_an_error(
    create: Callable[[], tasks.GroupRef], through: Through
) -> None:
    through(FaultyTransport({GROUPS: [None, httpx.Response(400, json={"message": "No."})]}))
    with pytest.raises(errors.BadRequest, match=r"No\."):
        create()


def staged(saved: Saved, frame: pl.DataFrame, folder: Path) -> Staged:
    local = folder / "list.parquet"
    frame.write_parquet(local)
    saved.lake.files.put(local, "staging/list.parquet")
    return describe(local, "staging/list.parquet")


def test_a_row_the_service_refuses_stops_the_refresh(
    saved: Saved, create: Callable[[], tasks.GroupRef], tmp_path: Path
) -> None:
    bad = staged(saved, customers(30, invalid_every=10), tmp_path)
    with pytest.raises(tasks.UploadIncomplete, match=r"refused 3 rows .* row 10 \w+ \(\w+\)"):
        tasks.upload_customers.fn(saved.name, create(), bad, saved.name)


def test_a_group_of_another_size_stops_the_refresh(
    saved: Saved,
    create: Callable[[], tasks.GroupRef],
    through: Through,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "SETTLE_SECONDS", 0)
    good = staged(saved, customers(30), tmp_path)
    group = create()
    queued = {"job_uid": "j", "status": "queued", "total": 30, "accepted": 0, "rejected": 0}
    through(FaultyTransport({UPLOAD: [httpx.Response(200, json={**queued, "errors": []})]}))
    with pytest.raises(tasks.UploadIncomplete, match="has 0 customers, not 30"):
        tasks.upload_customers.fn(saved.name, group, good, saved.name)
    assert tasks.upload_customers.fn(saved.name, group, good, saved.name) == 30


def test_a_long_list_is_uploaded_in_chunks(
    saved: Saved,
    create: Callable[[], tasks.GroupRef],
    through: Through,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.staging.ROWS_AT_ONCE", 8)
    transport = through(FaultyTransport())
    good = staged(saved, customers(30), tmp_path)
    assert tasks.upload_customers.fn(saved.name, create(), good, saved.name) == 30
    assert transport.calls[UPLOAD] == 4


def test_a_staged_file_that_is_gone_or_changed_is_not_used(saved: Saved, tmp_path: Path) -> None:
    one = staged(saved, customers(5), tmp_path)
    staged(saved, customers(6), tmp_path)
    with pytest.raises(StagingLost, match="has changed"), local_copy(saved.lake, one):
        pass
    saved.lake.files.remove("staging")
    with pytest.raises(StagingLost, match="no longer"), local_copy(saved.lake, one):
        pass


def test_a_campaign_that_went_on_is_not_published(company: Company, saved: Saved) -> None:
    run = RunRef(
        campaign_id=company.seeded.campaign_id,
        run_number=7,
        customer_group_id="g",
        job_uid=None,
    )
    with pytest.raises(NotCurrent, match="is on run 1, not on run 7"):
        publish_campaign.fn(saved.name, run)
