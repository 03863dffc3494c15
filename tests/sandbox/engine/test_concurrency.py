"""Many clients of several accounts at once: nothing is lost, doubled or shown to a stranger."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from threading import Barrier

import httpx
import polars as pl
import pytest
from sqlalchemy import select

from nudgescribe import errors, rfc4180, segments
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Run, Status
from nudgescribe.retry import RetryPolicy
from sandbox import seed
from sandbox.data.models import Job
from tests.conftest import Company, Sandbox, customers
from tests.sandbox.conftest import new_group
from tests.support.clock import until

COMPANIES, CLIENTS, ACTIONS = 5, 10, 5
ROWS = 20
ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
LATE = "The campaign has moved on to another run."
REFUSALS = {
    (400, "Only Published campaigns can be rerun"),
    (400, "Current run cannot be archived"),
    (400, "Campaign is not ready to publish."),
    (400, "Campaign is not ready for review."),
    (404, "File not found."),
    (404, "Campaign/details not found."),
}
"""Errors that a client must expect when others use the same campaign."""


@dataclass
class Office:
    """The clients of one company, and all answers that they got."""

    company: Company
    pool: str
    """A group that all of them upload to."""
    texts: list[str] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    runs_begun: list[int] = field(default_factory=list)
    accepted: list[tuple[str, list[str]]] = field(default_factory=list)
    """Identifiers of customers, by the group they were uploaded to."""

    @property
    def ids_seen(self) -> set[str]:
        return {name for text in self.texts for name in ID.findall(text)}

    def record(self, answer: httpx.Response) -> None:
        answer.read()
        self.texts.append(answer.text)
        if answer.is_error:
            self.refusals.append((answer.status_code, answer.json()["message"]))

    def review(self) -> None:
        """Approve the current run, as reviewers do in the platform."""
        sandbox, campaign = self.company.sandbox, self.company.seeded.campaign_id
        with httpx.Client(transport=RecordingTransport(self), timeout=60) as client:
            client.post(f"{sandbox.url}/sandbox/campaigns/{campaign}/approve")

    def client(self) -> NudgescribeClient:
        once = RetryPolicy(attempts=1)
        return self.company.client(retry=once, transport=RecordingTransport(self))


class RecordingTransport(httpx.HTTPTransport):
    """Transport that records every answer in an office."""

    def __init__(self, office: Office) -> None:
        super().__init__(verify=False)  # certificates take longer to load than all calls together
        self._office = office

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        self._office.record(answer)
        return answer


class Clerk:
    """One client; half of its actions are random."""

    def __init__(self, office: Office, number: int, client: NudgescribeClient) -> None:
        self._office, self._number, self._client = office, number, client
        self._one = office.company.seeded
        self._random = Random(number)
        self._made = 0

    def work(self) -> None:
        blind = [self.upload, self.look, self.read_pages]
        blind += [self.initiate, self.publish, self.approve]
        actions = [*blind, *[self.go_on] * len(blind)]
        for _ in range(ACTIONS):
            # What was refused is among the answers.
            with suppress(errors.BadRequest, errors.NotPublished, errors.NotFound):
                self._random.choice(actions)()

    def go_on(self) -> None:
        """Take the campaign's next step, unless another client is faster."""
        run = until(self.finished_run, every=0.2)
        steps = {
            Status.READY_FOR_REVIEW: self.approve,
            Status.READY_TO_PUBLISH: self.publish,
            Status.PUBLISHED: self.initiate,
        }
        steps[Status(run.status)]()

    def finished_run(self) -> Run | None:
        run = self.history()[0]
        return None if run.status == Status.PROCESSING else run

    def upload(self) -> None:
        """Upload to the shared group, or to a new one."""
        self._made += 1
        name = f"{self._number}-{self._made}"
        group = self._office.pool
        if self._random.random() < 0.5:
            made = self._client.create_group(self._one.workspace_id, name)
            group = made.customer_group_id
        ids = [f"{name}-{row}" for row in range(ROWS)]
        rows = customers(ROWS).with_columns(pl.Series("customer_id", ids))
        answer = self._client.upload_customers(self._one.workspace_id, group, rfc4180.write(rows))
        assert (answer.accepted, answer.rejected) == (ROWS, 0)
        self._office.accepted.append((group, ids))

    def look(self) -> None:
        self.history()
        self._client.rerun_messages(self._one.campaign_id)
        ((campaign,),) = [each.campaigns for each in self._client.campaigns()]
        assert campaign.campaign_id == self._one.campaign_id

    def history(self) -> list[Run]:
        runs = self._client.rerun_history(self._one.campaign_id)
        check_history(runs)
        return runs

    def read_pages(self) -> None:
        self._client.count_customers(self._one.workspace_id, self._office.pool)
        if self._client.count_message_pages(self._one.campaign_id):
            self._client.fetch_csv(self._one.campaign_id, 0)

    def initiate(self) -> None:
        groups = self._client.list_groups(self._one.workspace_id)
        full = [group.customer_group_id for group in groups if group.customer_count]
        begun = self._client.initiate_rerun(self._one.campaign_id, self._random.choice(full))
        self._office.runs_begun.append(begun.run.run_number)

    def publish(self) -> None:
        self._client.publish(self._one.campaign_id)

    def approve(self) -> None:
        self._office.review()


def check_history(runs: list[Run]) -> None:
    """Check that run numbers have no gaps, newest first, and only the newest is processing."""
    numbers = [run.run_number for run in runs]
    assert numbers == [*range(len(runs), 0, -1)]
    assert Status.PROCESSING not in [run.status for run in runs[1:]]


@pytest.fixture
def offices(sandbox: Sandbox) -> list[Office]:
    opened: list[Office] = []
    for _ in range(COMPANIES):
        company = Company(sandbox, seed.seed(sandbox.context, 60))
        with company.client() as client:
            pool = new_group(client, company.seeded, customers(60), "Pool")
        opened.append(Office(company, pool))
    return opened


@pytest.mark.chaos
def test_fifty_clients_lose_and_double_nothing(offices: list[Office]) -> None:
    start = Barrier(COMPANIES * CLIENTS)

    def work(office: Office, number: int) -> None:
        with office.client() as client:
            start.wait()
            Clerk(office, number, client).work()

    with ThreadPoolExecutor(COMPANIES * CLIENTS) as pool:
        work_done = [
            pool.submit(work, office, number) for office in offices for number in range(CLIENTS)
        ]
    for each in work_done:
        each.result()
    for office in offices:
        check_jobs(office)
        with office.company.client() as client:
            check_runs(office, client)
            check_customers(office, client)
    for office in offices:
        others = [each.ids_seen for each in offices if each is not office]
        assert office.company.seeded.campaign_id in office.ids_seen
        assert office.ids_seen.isdisjoint(set().union(*others))
        assert {*office.refusals} <= REFUSALS


def check_runs(office: Office, client: NudgescribeClient) -> None:
    """Check that each run was begun once and has one message per segment."""
    campaign = office.company.seeded.campaign_id
    runs = client.rerun_history(campaign)
    check_history(runs)
    assert len(runs) > 1
    assert sorted(office.runs_begun) == [*range(2, len(runs) + 1)]
    for run in runs:
        messages = client.rerun_messages(campaign, run.run_number)
        found = {segments.key(message.segment) for message in messages}
        assert run.status != Status.FAILED
        assert len(messages) == len(found) == run.segment_count
    active = client.rerun_messages(campaign)
    assert {message.run_number for message in active} == {runs[0].run_number}


def check_customers(office: Office, client: NudgescribeClient) -> None:
    """Check that every accepted row is stored, once."""
    assert office.accepted
    workspace = office.company.seeded.workspace_id
    for group in {group for group, _ in office.accepted}:
        found = [customer.customer_id for customer in client.customers(workspace, group)]
        uploaded = {name for where, ids in office.accepted if where == group for name in ids}
        assert len(found) == len({*found})
        assert uploaded <= {*found}


def check_jobs(office: Office) -> None:
    """Check that each job is done, except exports of runs that are no longer current."""
    jobs = select(Job.state, Job.note).where(Job.subject == office.company.seeded.campaign_id)

    def states() -> set[str]:
        with office.company.sandbox.context.store.read() as session:
            found = session.execute(jobs)
            return {"late" if note == LATE else state for state, note in found}

    until(lambda: not {"queued", "running"} & states())
    assert states() <= {"done", "late"}
