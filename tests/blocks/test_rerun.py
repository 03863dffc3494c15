"""The rerun as a job: started at most once, awaited, its result fetched."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from blocks import CampaignRerun, NudgescribeAccount
from blocks.rerun import RerunFailed, RerunTimedOut, RunRemoved
from nudgescribe import errors, rfc4180
from nudgescribe.contract import Run, Status
from nudgescribe.errors import ServerError
from tests.conftest import Company, Through, customers
from tests.support.clock import Clock
from tests.support.response_tamperer import Fault, ResponseTamperer, answering

INITIATE = "/v1/campaign/rerun/initiate"
HISTORY = "/v1/campaign/rerun/history"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only when somebody sleeps."""
    monkeypatch.setattr(
        CampaignRerun, "poll_policy", Clock().poll_policy(first_wait=1, longest_wait=5)
    )


def create_rerun(company: Company, count: int = 100) -> CampaignRerun:
    """A rerun on a new group of so many customers."""
    with company.client() as client:
        workspace = company.seeded.workspace_id
        group = client.create_group(workspace, f"{count} customers").customer_group_id
        if count:
            client.upload_customers(workspace, group, rfc4180.write(customers(count)))
    return CampaignRerun(
        account=company.account(), campaign_id=company.seeded.campaign_id, customer_group_id=group
    )


def settle(company: Company) -> None:
    with company.client() as client:
        company.settle(client)


def test_rerun_is_triggered_once_awaited_and_fetched(company: Company) -> None:
    rerun = create_rerun(company)
    jobs = [rerun.trigger() for _ in range(3)]
    assert [job.run_number for job in jobs] == [2, 2, 2]
    assert len(company.history()) == 2
    settle(company)
    jobs[0].wait_for_completion()
    result = jobs[0].fetch_result()
    assert (result.run_number, result.status) == (2, Status.READY_FOR_REVIEW)
    assert result.customer_group_id == rerun.customer_group_id


@pytest.mark.parametrize(
    "lost",
    [
        httpx.Response(502),
        httpx.ReadTimeout,
        httpx.RemoteProtocolError,
        httpx.Response(200, json={"run": {"run_number": 2}}),
    ],
)
def test_lost_answer_is_replaced_by_the_history(
    company: Company, through: Through, lost: Fault
) -> None:
    rerun = create_rerun(company)
    transport = through(ResponseTamperer(after={INITIATE: [lost]}))
    assert rerun.trigger().run_number == 2
    assert transport.calls[INITIATE] == 1
    assert len(company.history()) == 2


def test_lost_request_is_not_sent_again(company: Company, through: Through) -> None:
    rerun = create_rerun(company)
    transport = through(ResponseTamperer({INITIATE: [httpx.ConnectTimeout]}))
    with pytest.raises(errors.ConnectionFailed, match="look before repeating"):
        rerun.trigger()
    assert transport.calls[INITIATE] == 1
    assert transport.calls[HISTORY] > 10
    assert len(company.history()) == 1
    assert rerun.trigger().run_number == 2


def test_refusal_after_own_lost_request_adopts_the_rerun(
    company: Company, through: Through
) -> None:
    rerun = create_rerun(company)
    run_1 = httpx.Response(200, json={"runs": [{"run_number": 1, "status": "Published"}]})
    with company.client() as client:
        client.initiate_rerun(rerun.campaign_id, rerun.customer_group_id)
    through(ResponseTamperer({HISTORY: [run_1]}))
    assert rerun.trigger().run_number == 2


def test_foreign_or_earlier_rerun_is_not_adopted(company: Company) -> None:
    rerun = create_rerun(company)
    assert rerun.trigger().run_number == 2
    settle(company)
    for other in (create_rerun(company, 50), rerun.model_copy(update={"after_run": 2})):
        with pytest.raises(errors.NotPublished):
            other.trigger()
    assert len(company.history()) == 2
    assert rerun.model_copy(update={"after_run": 1}).trigger().run_number == 2


def test_exceeded_quota_is_raised_at_once(company: Company, through: Through) -> None:
    rerun = create_rerun(company)
    transport = through(ResponseTamperer({INITIATE: [httpx.Response(429)]}))
    with pytest.raises(errors.QuotaExceeded):
        rerun.trigger()
    assert transport.calls[HISTORY] == 1


def test_failed_run_raises_the_services_reason(company: Company) -> None:
    rerun = create_rerun(company, 0)
    job = rerun.trigger()
    settle(company)
    with pytest.raises(RerunFailed, match=r"Run 2 of .* failed: The customer group has no cust"):
        job.wait_for_completion()
    assert rerun.trigger().run_number == 3


def scripted_history(*statuses: str) -> ResponseTamperer:
    """A service whose history shows one status after the other, the last one for ever."""
    shown = list(statuses)
    transport = answering(b"")
    sign_in = transport._answer
    assert sign_in

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != HISTORY:
            return sign_in(request)
        status = shown.pop(0) if len(shown) > 1 else shown[0]
        if status == "down":
            return httpx.Response(503)
        if status == "missing":
            return httpx.Response(200, json={"runs": []})
        status, _, phase = status.partition("/")
        run = {"run_number": 2, "status": status, "phase": phase or None}
        later = {"run_number": 3, "status": "Processing"}
        return httpx.Response(200, json={"runs": [later, run]})

    return ResponseTamperer(answer=answer)


def attach_job(
    through: Through, *statuses: str, on_poll: Callable[[Run], None] | None = None
) -> Any:
    """The job of run 2 at a service whose history shows these statuses."""
    through(scripted_history(*statuses))
    values = {"email": "e", "password": "p", "api_key": "k", "api_code": "c"}
    account = NudgescribeAccount.model_validate({"base_url": "https://x", **values})
    rerun = CampaignRerun(
        account=account, campaign_id="C", customer_group_id="G", deadline_minutes=2
    )
    return rerun.attach(2, on_poll)


def test_waiting_logs_changes_and_survives_transient_errors(
    through: Through, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str | None] = []
    shows = ["missing", "Processing/Copying", "down", "Processing/Copying", "Strange", "Published"]
    job = attach_job(through, *shows, on_poll=lambda run: seen.append(run.phase))
    with caplog.at_level("INFO", logger="prefect.RerunJob"):
        job.wait_for_completion()
    assert seen == ["Copying", "Copying", None, None]
    assert [record.message for record in caplog.records if record.name.endswith("RerunJob")] == [
        "Run 2: Processing (Copying)",
        "Run 2: Strange",
        "Run 2: Published",
    ]


def test_failed_run_of_a_long_reason_is_short_and_on_one_line(through: Through) -> None:
    job = attach_job(through, "Failed")
    run = {"run_number": 2, "status": "Failed", "error": "x\n" * 9999}
    through(answering(json.dumps({"runs": [run]})))
    with pytest.raises(RerunFailed) as caught:
        job.wait_for_completion()
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_run_that_stays_out_of_the_history_was_removed(through: Through) -> None:
    job = attach_job(through, "Processing", "missing")
    with pytest.raises(RunRemoved, match="is not in its history, after 60 seconds. It was removed"):
        job.wait_for_completion()
    with pytest.raises(RunRemoved):
        job.fetch_result()


def test_run_is_not_taken_for_removed_while_the_service_is_down(through: Through) -> None:
    job = attach_job(through, "missing", "down")
    with pytest.raises(ServerError):
        job.fetch_result()
    with pytest.raises(ServerError):
        attach_job(through, "missing", "down").wait_for_completion()


def test_time_out_names_the_last_status(through: Through) -> None:
    job = attach_job(through, "Processing/Generating")
    with pytest.raises(RerunTimedOut, match=r"after 120 s, last seen: Processing \(Generating\)"):
        job.wait_for_completion()
