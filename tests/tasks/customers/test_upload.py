"""The group's tasks where something goes wrong between here and the service."""

from collections.abc import Callable
from functools import partial

import httpx
import pytest

from blocks.rerun import NotCurrent
from nudgescribe import errors
from nudgescribe.retry import poll
from tasks.campaigns import CampaignRef, Refresh, RunRef, publish_run
from tasks.customers import upload as tasks
from tasks.customers.staging import StagingLost, local_copy
from tests.conftest import Company, Through, customers
from tests.support.clock import Clock
from tests.support.response_tamperer import Fault, ResponseTamperer
from tests.tasks.conftest import Local

GROUPS = "/v1/cg"
UPLOAD = "/v1/customer/check"


def campaign_of(company: Company) -> CampaignRef:
    return CampaignRef(
        campaign_id=company.seeded.campaign_id,
        name="Welcome back",
        workspace_id=company.seeded.workspace_id,
        previous_run=1,
        previous_group=company.seeded.customer_group_id,
        previous_pages=3,
    )


@pytest.fixture
def create(company: Company, local: Local, refresh: Refresh) -> Callable[[], tasks.GroupRef]:
    template = "{campaign} {run:%Y-%m-%d %H:%M}"
    return lambda: tasks.create_group.fn(local.account, campaign_of(company), template, refresh)


def test_group_name_has_campaign_and_planned_time(
    create: Callable[[], tasks.GroupRef],
) -> None:
    assert create().name == "Welcome back 2026-11-21 06:30"


def test_group_is_created_once_per_refresh(
    company: Company, create: Callable[[], tasks.GroupRef]
) -> None:
    assert create() == create()
    assert len(company.groups()) == 2


def test_group_is_found_when_its_name_was_taken(
    company: Company, local: Local, create: Callable[[], tasks.GroupRef], refresh: Refresh
) -> None:
    first, name = create(), "{campaign} {run:%Y-%m-%d %H:%M}"
    other = refresh.model_copy(update={"id": "other"})
    second, again = (
        tasks.create_group.fn(local.account, campaign_of(company), name, other) for _ in range(2)
    )
    assert second == again
    assert company.groups() == ["First customers", first.name, f"{first.name} (other)"]


def test_reused_group_is_found_by_name_then_by_marker(
    company: Company, local: Local, refresh: Refresh
) -> None:
    made = tasks.find_or_create_group.fn(local.account, company.seeded.workspace_id, "Ours")
    for name in ("Ours", "renamed meanwhile"):
        assert (
            tasks.create_group.fn(local.account, campaign_of(company), name, refresh, True) == made
        )
    new = tasks.create_group.fn(
        local.account,
        campaign_of(company),
        "Theirs",
        refresh.model_copy(update={"id": "other"}),
        True,
    )
    assert company.groups() == ["First customers", "Ours", "Theirs"]
    assert new.name == "Theirs"


@pytest.mark.parametrize("lost", [httpx.Response(502), httpx.ReadTimeout])
def test_group_is_found_when_answer_was_lost(
    company: Company, create: Callable[[], tasks.GroupRef], through: Through, lost: Fault
) -> None:
    # Calls to the path: look for an earlier group, create, look again.
    through(ResponseTamperer(after={GROUPS: [None, lost]}))
    assert create().name in company.groups()
    assert len(company.groups()) == 2


def test_group_fails_when_it_was_not_created(
    company: Company, create: Callable[[], tasks.GroupRef], through: Through
) -> None:
    through(ResponseTamperer({GROUPS: [None, httpx.ConnectError]}))
    with pytest.raises(errors.ConnectionFailed):
        create()
    assert company.groups() == ["First customers"]


def test_group_fails_when_refused_for_another_reason(
    create: Callable[[], tasks.GroupRef], through: Through
) -> None:
    through(ResponseTamperer({GROUPS: [None, httpx.Response(400, json={"message": "No."})]}))
    with pytest.raises(errors.BadRequest, match=r"No\."):
        create()


def test_upload_fails_when_service_rejects_rows(
    local: Local, create: Callable[[], tasks.GroupRef]
) -> None:
    bad = local.staged(customers(30, invalid_every=10))
    with pytest.raises(
        tasks.UploadIncomplete, match=r"rejected 3 accepted rows.* row 10 \w+ \(\w+\)"
    ):
        tasks.upload_customers.fn(local.account, create(), bad, local.lake)


def test_upload_numbers_rejected_row_through_whole_list(
    local: Local, create: Callable[[], tasks.GroupRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROWS_SENT", 8)
    bad = local.staged(customers(15, invalid_every=10))
    with pytest.raises(
        tasks.UploadIncomplete, match=r"rejected 1 accepted rows.* row 10 \w+ \(\w+\)"
    ):
        tasks.upload_customers.fn(local.account, create(), bad, local.lake)


def test_upload_waits_for_slow_group(
    local: Local,
    create: Callable[[], tasks.GroupRef],
    through: Through,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "poll", partial(poll, pace=Clock().pace()))
    good = local.staged(customers(30))
    half = httpx.Response(200, json={"num_pages": 1, "page_size": 100, "total": 15})
    through(ResponseTamperer({"/v1/customer/pages": [half, half]}))
    assert tasks.upload_customers.fn(local.account, create(), good, local.lake) == 30


def test_upload_fails_when_group_has_another_size(
    local: Local,
    create: Callable[[], tasks.GroupRef],
    through: Through,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "SETTLE_SECONDS", 0)
    good = local.staged(customers(30))
    group = create()
    queued = {"job_uid": "j", "status": "queued", "total": 30, "accepted": 0, "rejected": 0}
    through(ResponseTamperer({UPLOAD: [httpx.Response(200, json={**queued, "errors": []})]}))
    with pytest.raises(tasks.UploadIncomplete, match="has 0 customers, not 30, after 0 minutes"):
        tasks.upload_customers.fn(local.account, group, good, local.lake)
    assert tasks.upload_customers.fn(local.account, group, good, local.lake) == 30


def test_upload_sends_long_list_in_chunks(
    local: Local,
    create: Callable[[], tasks.GroupRef],
    through: Through,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "ROWS_SENT", 8)
    transport = through(ResponseTamperer())
    good = local.staged(customers(30))
    assert tasks.upload_customers.fn(local.account, create(), good, local.lake) == 30
    assert transport.calls[UPLOAD] == 4


def test_staged_file_is_refused_when_missing_or_changed(local: Local) -> None:
    one = local.staged(customers(5))
    local.staged(customers(6))
    with pytest.raises(StagingLost, match="has changed"), local_copy(local.lake, one):
        pass
    local.lake.files.remove("staging")
    with pytest.raises(StagingLost, match="no longer"), local_copy(local.lake, one):
        pass


def test_publish_is_refused_when_campaign_has_moved_on(company: Company, local: Local) -> None:
    run = RunRef(
        campaign_id=company.seeded.campaign_id,
        run_number=7,
        customer_group_id="g",
        job_uid=None,
    )
    with pytest.raises(NotCurrent, match="is on run 1, not on run 7"):
        publish_run.fn(local.account, run)
