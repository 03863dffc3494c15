"""The group's tasks where something goes wrong between here and the service."""

from functools import partial

import httpx
import pytest

from blocks.rerun import NotCurrent
from nudgescribe import errors
from nudgescribe.bases import Frozen
from nudgescribe.contract import UpdateGroup
from nudgescribe.retry import poll
from tasks.campaigns import GroupBusy, Refresh, RunRef, publish_run
from tasks.customers import upload as tasks
from tasks.customers.group_check import check_content
from tasks.customers.staging import Staged, StagingChanged, StagingLost, local_copy
from tasks.customers.validate import Validated
from tasks.journal.entries import Journal, Step
from tasks.journal.owners import Owner
from tasks.journal.refresh import Claimed
from tests.conftest import Company, Through, customers
from tests.support.clock import Clock
from tests.support.response_tamperer import Fault, ResponseTamperer
from tests.tasks.conftest import Create, Local, new_refresh

GROUPS, UPLOAD = "/v1/cg", "/v1/customer/check"
DATED = "{campaign} {run:%Y-%m-%d %H:%M}"


class Note(Frozen):
    """An entry of which only matters that it is there."""


def queued(total: int) -> httpx.Response:
    """An upload that the service will work off some time."""
    job = {"job_uid": "j", "status": "queued", "total": total, "accepted": 0, "rejected": 0}
    return httpx.Response(200, json={**job, "errors": []})


def test_group_is_created_once_per_refresh(
    company: Company, create: Create, refresh: Refresh
) -> None:
    first = create(DATED)
    assert first.name == "Welcome back 2026-11-21 06:30"
    assert create(DATED) == first
    other = refresh.model_copy(update={"id": "other"})
    assert create(DATED, other) == create(DATED, other)
    assert company.groups() == ["First customers", first.name, f"{first.name} (other)"]


def test_reused_group_is_found_by_name_then_by_marker(
    company: Company, local: Local, create: Create, refresh: Refresh
) -> None:
    made = tasks.find_or_create_group.fn(local.account, company.seeded.workspace_id, "Ours")
    for name in ("Ours", "renamed meanwhile"):
        reused = create(name, reuse=True)
        assert (reused.customer_group_id, reused.reused) == (made.customer_group_id, True)
    new = create("Theirs", refresh.model_copy(update={"id": "other"}), reuse=True)
    assert company.groups() == ["First customers", "Ours", "Theirs"]
    assert new.name == "Theirs"


def test_reused_group_stays_held_by_a_refresh_of_another_lake(
    company: Company, local: Local, refresh: Refresh
) -> None:
    theirs = refresh.model_copy(update={"journal": "refreshes/campaign_id=C/00000001"})
    with company.client() as client:
        client.create_group(company.seeded.workspace_id, "Ours", theirs.marker(reused=True))

    def held_by() -> str | None:
        group = tasks.find_group.fn(local.account, company.seeded.workspace_id, "Ours", local.lake)
        assert group is not None
        return group.held_by

    journal = Journal(local.lake.files, theirs.journal)
    owner = Owner(flow_run="f", host="h", pid=1)
    assert held_by() == refresh.id
    # The same path in this lake, of another refresh that is over.
    journal.create(Step.CLAIMED, Claimed(refresh=new_refresh(), owner=owner))
    journal.create(Step.ENDED, Note())
    assert held_by() == refresh.id
    local.lake.files.write(f"{theirs.journal}/00-claimed.json", b"")
    assert held_by() == refresh.id
    local.lake.files.remove(f"{theirs.journal}/00-claimed.json")
    journal.create(Step.CLAIMED, Claimed(refresh=theirs, owner=owner))
    assert held_by() is None


def test_group_marked_by_two_refreshes_at_once_is_left_to_the_later_one(
    company: Company, local: Local, create: Create, through: Through, refresh: Refresh
) -> None:
    made = tasks.find_or_create_group.fn(local.account, company.seeded.workspace_id, "Ours")
    other = new_refresh()
    marked = UpdateGroup(
        customer_group_id=made.customer_group_id, description=other.marker(reused=True)
    )

    def answer(request: httpx.Request) -> httpx.Response:
        answered = real.handle_request(request)
        if marking and b"description" in request.read() and request.method != "POST":
            marking.clear()
            answered.read()
            with company.client() as client:
                client.update_group(marked)
        return answered

    marking = [True]
    listed = {"accepted": local.staged(customers(5)), "key": "customer_id", "fingerprint": ""}
    validated = Validated.model_validate(
        {**listed, "extracted": 5, "rejected": 0, "quarantine": None}
    )
    told = f"held by refresh {other.id}"
    through(ResponseTamperer(answer=answer))
    with httpx.HTTPTransport() as real:
        with pytest.raises(GroupBusy, match=told):
            create("Ours", reuse=True)
        with pytest.raises(GroupBusy, match=told):
            check_content.fn(local.account, made, validated, local.lake, refresh)
    assert not marking


@pytest.mark.parametrize("lost", [httpx.Response(502), httpx.ReadTimeout])
def test_group_is_found_when_answer_was_lost(
    company: Company, create: Create, through: Through, lost: Fault
) -> None:
    # Calls to the path: look for an earlier group, create, look again.
    through(ResponseTamperer(after={GROUPS: [None, lost]}))
    assert create(DATED).name in company.groups()
    assert len(company.groups()) == 2


@pytest.mark.parametrize(
    ("fault", "error", "problem"),
    [
        (httpx.ConnectError, errors.ConnectionFailed, None),
        (httpx.Response(400, json={"message": "No."}), errors.BadRequest, r"No\."),
    ],
)
def test_group_fails_when_it_was_not_created(
    company: Company,
    create: Create,
    through: Through,
    fault: Fault,
    error: type[Exception],
    problem: str | None,
) -> None:
    through(ResponseTamperer({GROUPS: [None, fault]}))
    with pytest.raises(error, match=problem):
        create(DATED)
    assert company.groups() == ["First customers"]


def upload(local: Local, group: tasks.GroupRef, listed: Staged) -> int:
    return tasks.upload_customers.fn(local.account, group, listed, local.lake, new_refresh()).size


@pytest.mark.parametrize(("rows_sent", "rejected"), [(tasks.ROWS_SENT, 3), (8, 1)])
def test_upload_fails_when_service_rejects_rows(
    local: Local,
    create: Create,
    monkeypatch: pytest.MonkeyPatch,
    rows_sent: int,
    rejected: int,
) -> None:
    """A row's number is that in the whole list."""
    monkeypatch.setattr(tasks, "ROWS_SENT", rows_sent)
    bad = local.staged(customers(30, invalid_every=10))
    said = rf"rejected {rejected} rows that keep.* row 10 \w+ \(\w+\)"
    with pytest.raises(tasks.UploadIncomplete, match=said):
        upload(local, create(DATED), bad)


def test_upload_sends_chunks_and_waits_for_slow_group(
    local: Local, create: Create, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROWS_SENT", 8)
    monkeypatch.setattr(tasks, "poll", partial(poll, policy=Clock().poll_policy()))
    half = httpx.Response(200, json={"num_pages": 1, "page_size": 100, "total": 15})
    transport = through(ResponseTamperer({"/v1/customer/pages": [half, half]}))
    assert upload(local, create(DATED), local.staged(customers(30))) == 30
    assert transport.calls[UPLOAD] == 4


def test_upload_fails_when_group_has_another_size(
    local: Local, create: Create, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SETTLE_SECONDS", 0)
    good, group = local.staged(customers(30)), create(DATED)
    through(ResponseTamperer({UPLOAD: [queued(30)]}))
    with pytest.raises(tasks.UploadIncomplete, match="has 0 customers, not 30, after 0 minutes"):
        upload(local, group, good)
    assert upload(local, group, good) == 30


def test_staged_file_is_refused_when_missing_or_changed(local: Local) -> None:
    one = local.staged(customers(5))
    local.staged(customers(6))
    with pytest.raises(StagingChanged, match="has changed"), local_copy(local.lake, one):
        pass
    local.lake.files.remove("staging")
    with pytest.raises(StagingLost, match="no longer"), local_copy(local.lake, one):
        pass


def test_publish_is_refused_when_campaign_has_moved_on(company: Company, local: Local) -> None:
    run = RunRef(
        campaign_id=company.seeded.campaign_id, run_number=7, customer_group_id="g", job_uid=None
    )
    with pytest.raises(NotCurrent, match="is on run 1, not on run 7"):
        publish_run.fn(local.account, run, local.lake, new_refresh())
