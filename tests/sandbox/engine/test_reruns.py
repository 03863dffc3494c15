"""Jobs: what they do, how they fail, and the states they leave."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from sandbox import demo_customers
from sandbox.data.models import Job
from sandbox.engine import quota, reruns
from sandbox.engine.jobs import Worker
from sandbox.settings import Settings
from tests.conftest import Company, customers, seed, serving
from tests.sandbox.conftest import ended_job, initiate, rerun


def test_rerun_without_customers_fails_and_the_next_has_another_number(
    company: Company, client: NudgescribeClient
) -> None:
    run = rerun(company, client, 0)
    assert (run.status, run.error) == (Status.FAILED, "The customer group has no customers.")
    assert initiate(company, client).run_number == 3


def test_repeated_phases_charge_the_generated_messages_once(
    company: Company, client: NudgescribeClient
) -> None:
    context, account_id = company.sandbox.context, company.seeded.account_id
    number = rerun(company, client).run_number
    for _ in range(2):
        reruns.run_job(context, company.seeded.campaign_id, number)
    with context.store.read() as session:
        assert quota.used(session, context.settings, account_id).generated == 4


def test_unexpected_error_fails_the_run_and_not_the_service(
    company: Company, client: NudgescribeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(reruns, "run_job", broken)
    run = rerun(company, client)
    assert (run.status, run.error) == ("Failed", "Internal error: ZeroDivisionError.")
    assert client.campaigns()


def test_jobs_survive_a_database_error(
    company: Company, client: NudgescribeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Worker._claim
    failures = iter([OperationalError("SELECT", {}, Exception())] * 4)

    def away_at_first(self: Worker) -> Job | None:
        for failure in failures:
            raise failure
        return claim(self)

    monkeypatch.setattr(Worker, "_claim", away_at_first)
    assert rerun(company, client).status == Status.READY_FOR_REVIEW
    assert next(failures, None) is None


def test_broken_export_is_queued_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data=tmp_path)

    def states(company: Company) -> list[str]:
        with company.sandbox.context.store.read() as session:
            return list(session.scalars(select(Job.state)))

    with monkeypatch.context() as broken, serving(settings) as service:
        company = Company(service, seed.seed(service.context, 60))
        broken.setattr("sandbox.data.page_files.PageFiles.write", lambda *arguments: 1 / 0)
        with company.client() as client:
            client.publish(company.seeded.campaign_id)
        while states(company) != ["broken"]:
            pass
    with serving(settings) as service:
        while states(Company(service, company.seeded)) != ["done"]:
            pass


def late_export(company: Company) -> tuple[str, str | None]:
    """Queue an export of Run #1 now; return how it ends."""
    with company.sandbox.context.store.write() as session:
        late = Job(kind="export", subject=company.seeded.campaign_id, run_number=1)
        session.add(late)
        session.flush()
        number = late.number
    job = ended_job(company.sandbox, number)
    return job.state, job.note


def test_export_of_a_run_that_is_not_current_fails(
    company: Company, client: NudgescribeClient
) -> None:
    initiate(company, client)
    assert late_export(company) == ("failed", "The campaign has moved on to another run.")


def test_export_of_a_deleted_group_fails(company: Company, client: NudgescribeClient) -> None:
    client.delete_group(company.seeded.customer_group_id)
    assert late_export(company) == ("failed", "The customer group is gone.")


def test_run_is_approved_after_the_delay(reviewed_company: Company) -> None:
    with reviewed_company.client() as client:
        initiate(reviewed_company, client)
        while reviewed_company.settle(client).status != Status.READY_TO_PUBLISH:
            pass


def test_run_is_not_approved_before_the_delay(tmp_path: Path) -> None:
    with serving(Settings(data=tmp_path, approve_after=3600)) as service:
        company = Company(service, seed.seed(service.context, 60))
        with company.client() as client:
            assert rerun(company, client).status == Status.READY_FOR_REVIEW


def test_customer_outside_the_runs_segments_is_not_exported(
    company: Company, client: NudgescribeClient
) -> None:
    campaign = company.seeded.campaign_id
    where = company.seeded.workspace_id, company.seeded.customer_group_id
    late = {**customers(1).row(0, named=True), "customer_id": "late", "plan": "never seen"}
    client.upload_customer(*where, late)
    client.delete_customers(*where, ["000001"])
    client.publish(campaign)

    def exported() -> list[str]:
        pages = (client.fetch_csv(campaign, number) for number in range(3))
        return [row for page in pages for row in rfc4180.read(page.encode())["customer_id"]]

    # Pages may be exchanged while they are read: old and new ones may be 299 rows together, too.
    while len(found := exported()) != 299 or found != exported():
        pass
    assert not {"late", "000001"} & {*found}


def test_generated_customers_are_deterministic() -> None:
    first, second = (
        list(demo_customers.customers(50, demo_customers.PLANS_NOW, invalid_every=7)) for _ in "ab"
    )
    assert first == second
