"""What a refresh asks of the service, each call of it with the same fault: it succeeds all the
same, or fails as something that passes, and then another try succeeds. Nothing is made twice.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any, TypeVar

import pytest

from blocks import NudgescribeAccount, rerun
from nudgescribe import contract
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import Retryable
from nudgescribe.retry import PollPolicy, RetryPolicy
from sandbox.api import auth, messages, security
from sandbox.middleware.faults import LINKS, ActiveFault, Fault
from tasks.campaigns import CampaignRef, RunRef, find_campaign, publish_run
from tasks.customers import upload
from tasks.customers.staging import Staged
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export import run as export
from tasks.export.run import RunToExport
from tasks.journal.refresh import Refresh
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.preview import Preview
from tasks.refresh.rerun import initiate_rerun
from tests.conftest import Company, customers
from tests.tasks.conftest import Local

T = TypeVar("T")
TRIES = 4
ROWS = 130
CHANGES = [
    ("PUT", contract.GROUPS),
    ("POST", contract.CUSTOMERS_CHECK),
    ("POST", contract.RERUN_INITIATE),
    ("POST", contract.PUBLISH),
]
READS = [
    ("POST", contract.FIELDS),
    ("POST", contract.GROUPS),
    ("POST", contract.CUSTOMERS_PAGES),
    ("POST", contract.CAMPAIGNS),
    ("POST", contract.RERUN_HISTORY),
    ("POST", contract.RERUN_MESSAGES),
    ("POST", contract.MESSAGES_PAGES),
    ("POST", contract.MESSAGES_FETCH),
]
SIGN_IN = [("POST", contract.AUTH)]
LINK = [("GET", LINKS)]


VALIDATED = Validated(
    accepted=Staged(path="p", rows=ROWS, sha256="s"),
    extracted=ROWS,
    rejected=0,
    quarantine=None,
    key="customer_id",
    fingerprint="f",
)
PREVIEW = Preview(matched=0, new=0, orphaned=0, customers_in_new=0, before=None)


@dataclass
class Refreshed:
    """A refresh as its steps, each tried again as a retry of the flow run does."""

    company: Company
    local: Local
    refresh: Refresh
    failed: list[str] = field(default_factory=list)

    def again(self, step: Callable[..., T], *given: Any) -> T:
        for _ in range(TRIES - 1):
            try:
                return step(self.local.account, *given)
            except Retryable as error:
                self.failed.append(str(error))
        return step(self.local.account, *given)

    def start(self) -> tuple[CampaignRef, GroupRef, RunRef]:
        """Up to the rerun's start."""
        campaign_id, name = self.company.seeded.campaign_id, "Daily"
        lake, refresh = self.local.lake, self.refresh
        campaign = self.again(find_campaign.fn, campaign_id, lake, refresh, name, False)
        with self.local.account.get_client() as client:
            assert client.list_fields(campaign.workspace_id)
            assert client.rerun_messages(campaign_id)
        group = self.again(upload.create_group.fn, campaign, name, lake, refresh)
        staged = self.local.staged(customers(ROWS))
        uploaded = self.again(upload.upload_customers.fn, group, staged, lake, refresh)
        assert uploaded.size == ROWS
        checkpoint: Checkpoint = self.again(
            initiate_rerun.fn, lake, refresh, campaign, VALIDATED, PREVIEW, group
        )
        return campaign, group, checkpoint.run

    def finish(self, campaign: CampaignRef, group: GroupRef, run: RunRef) -> None:
        """From the approval on."""
        with self.local.account.get_client() as client:
            self.company.settle(client)
        self.company.sandbox.approve(run.campaign_id)
        self.again(publish_run.fn, run, self.local.lake, self.refresh)
        wanted = RunToExport(
            campaign_id=run.campaign_id,
            run_number=run.run_number,
            workspace_id=group.workspace_id,
            customer_group_id=group.customer_group_id,
            job_uid=run.job_uid,
            check_rows=True,
            previous_run=campaign.previous_run,
            previous_pages=campaign.previous_pages,
        )
        while True:
            planned = self.again(export.plan_export.fn, wanted, self.local.lake, self.refresh, 1)
            for first, last in export.chunks(planned):
                self.again(export.fetch_chunk.fn, planned, first, last, self.local.lake, 2)
            if export.check_export.fn(planned, self.local.lake) is None:
                break
        export.commit_run.fn(planned, self.local.lake)

    def prove(self) -> None:
        """One group, one rerun, published, and each customer once in the lake."""
        runs = [(run.run_number, run.status) for run in self.company.history()]
        assert runs == [(2, Status.PUBLISHED), (1, Status.PUBLISHED)]
        assert len(self.company.groups()) == 2
        rows = self.local.lake.read(self.company.seeded.campaign_id, 2, "polars")
        assert rows["customer_id"].to_list() == customers(ROWS)["customer_id"].to_list()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def refreshed(
    company: Company,
    local: Local,
    refresh: Refresh,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Refreshed]:
    """Nobody waits but for the service's own work."""
    real = NudgescribeAccount.get_client

    def get_client(self: NudgescribeAccount, **options: Any) -> NudgescribeClient:
        retry = RetryPolicy(sleep=slept.append)
        return real(self, retry=retry, call_seconds=0.7, page_seconds=0.7)

    monkeypatch.setattr(NudgescribeAccount, "get_client", get_client)
    monkeypatch.setattr(export, "POLL_POLICY", PollPolicy(first_wait=0.02, longest_wait=0.1))
    monkeypatch.setattr(rerun, "PATIENCE_SECONDS", 0.0)
    yield Refreshed(company, local, refresh)
    company.sandbox.app.state.faults.clear()


EVERYWHERE = [*SIGN_IN, *READS, *CHANGES, *LINK]


@pytest.mark.parametrize(
    ("fault", "endpoints"),
    [
        ({"status": 429, "retry_after": 7, "times": 2}, EVERYWHERE),
        ({"status": 429}, EVERYWHERE),
        ({"status": 503, "times": 2}, EVERYWHERE),
        ({"drop": "before"}, EVERYWHERE),
        ({"drop": "after"}, EVERYWHERE),
        ({"truncate": True}, EVERYWHERE),
        ({"dribble": 0.05}, [READS[0], *CHANGES, ("POST", contract.MESSAGES_FETCH), *LINK]),
        ({"expired": True}, [*READS, *CHANGES, *LINK]),
    ],
    ids=["put off", "over quota", "503", "before", "after", "truncated", "dribbled", "expired"],
)
def test_refresh_survives_a_fault_of_every_call(
    refreshed: Refreshed,
    slept: list[float],
    fault: dict[str, Any],
    endpoints: list[tuple[str, str]],
) -> None:
    faults = refreshed.company.sandbox.app.state.faults
    for method, endpoint in endpoints:
        faults.put(
            Fault.model_validate({"times": 1, **fault, "endpoint": endpoint, "method": method})
        )
    switches: list[ActiveFault] = faults.all()
    refreshed.finish(*refreshed.start())
    assert [one.fault for one in switches if one.hits != one.fault.times] == []
    faults.clear()
    refreshed.prove()
    if "retry_after" in fault:
        # Every one of them has been waited for, and no step has failed for it.
        assert sum(wait >= 7 for wait in slept) == 2 * len(endpoints)
        assert not refreshed.failed


@pytest.mark.parametrize("hours", [-5, 5])
def test_refresh_completes_when_service_clock_is_wrong(
    refreshed: Refreshed, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """From where we stand."""

    class Its(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=hours)

    for place in (security, messages):
        monkeypatch.setattr(place, "time", lambda: Its.now().timestamp())
    monkeypatch.setattr("jwt.api_jwt.datetime", Its)
    started = refreshed.start()
    refreshed.finish(*started)
    refreshed.prove()
    assert not refreshed.failed


@pytest.mark.parametrize("hours", [-5, 5])
def test_refresh_completes_when_local_clock_jumps(
    refreshed: Refreshed, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    started = refreshed.start()
    real = time.time
    # Those of the service have been looked up before.
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    refreshed.finish(*started)
    refreshed.prove()
    assert not refreshed.failed


def test_refresh_completes_when_tokens_expire(
    refreshed: Refreshed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has issued them for two weeks, and forgets them all now and then."""
    issued = security.issue_token
    calls = 0

    def short(keys: Any, kind: Any, who: dict[str, str], seconds: int) -> str:
        nonlocal calls
        calls += 1
        return issued(keys, kind, who, -1 if calls % 4 < 2 else seconds)

    monkeypatch.setattr(auth, "issue_token", short)
    refreshed.finish(*refreshed.start())
    refreshed.prove()
    assert calls > 4
