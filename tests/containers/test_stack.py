"""The stack as the page brings it up: refreshes that people, schedules and events start."""

import subprocess
from collections.abc import Callable
from datetime import timedelta
from tempfile import TemporaryFile

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL

from blocks import DataLake
from tests.containers.conftest import Campaign, approve, commands, deployment, resume_reviewed
from tests.support.clock import SECONDS, until
from tests.support.containers import Stack
from tests.support.deployed import becomes

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]


def test_refresh_of_the_page_is_reviewed_and_its_messages_are_in_the_lake(stack: Stack) -> None:
    campaign = stack.variables("nudgeflow.env")["NUDGEFLOW_CAMPAIGN_ID"]
    *_, last = commands()
    with TemporaryFile("w+") as log:
        watched = subprocess.Popen(
            ["bash", "-c", last],
            cwd=stack.folder,
            env=stack.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        now = deployment("campaign-refresh/refresh-now")
        try:
            until(lambda: "Suspended" in [each.state_name for each in now.runs()], watched)
            approve(campaign)
            resume_reviewed()
        finally:
            watched.wait(SECONDS)
            log.seek(0)
            printed = log.read()
            print(printed)
    assert watched.returncode == 0
    assert "http://127.0.0.1:4200/artifacts/artifact/" in printed
    assert "server:4200" not in printed
    assert len(DataLake(root=str(stack.lake)).read(campaign, 2)) == 4949


@pytest.mark.parametrize(
    "service", ["postgres", "redis", "server", "services", "worker", "sandbox"]
)
def test_container_is_healthy(service: str, stack: Stack) -> None:
    until(lambda: stack.is_healthy(service))


@pytest.mark.parametrize("service", ["migrate", "bootstrap", "deploy"])
def test_container_has_done_its_work(service: str, stack: Stack) -> None:
    assert stack.inspect(service, "{{.State.Status}} {{.State.ExitCode}}") == "exited 0"


def test_ui_answers_and_knows_who_signs_in(stack: Stack) -> None:
    root = str(PREFECT_API_URL.value()).removesuffix("/api")
    page = httpx.get(root, follow_redirects=True)
    assert (page.status_code, "<title>Prefect" in page.text) == (200, True)
    assert httpx.get(f"{root}/api/ready").is_success
    # Who does not sign in learns no more than that.
    assert httpx.get(f"{root}/api/admin/settings").status_code == 401


def a_run_ends_well(name: str) -> None:
    deployed = deployment(name)
    until(lambda: "Completed" in [each.state_name for each in deployed.runs()])


def test_schedule_starts_a_refresh(stack: Stack) -> None:
    name = "campaign-refresh/refresh-monthly"
    every = IntervalSchedule(interval=timedelta(minutes=1))
    monthly = deployment(name).deployment_id
    with get_client(sync_client=True) as client:
        (schedule,) = client.create_deployment_schedules(monthly, [(every, True)])
        a_run_ends_well(name)
        client.delete_deployment_schedule(monthly, schedule.id)


def test_event_starts_a_refresh(stack: Stack) -> None:
    stack.run("docker compose run --rm --no-deps deploy nudgeflow schedule on refresh-when-loaded")
    emit = ("prefect", "event", "emit", "crm.list.loaded", "--resource-id", "crm.list.main")
    stack.inside("worker", *emit)
    a_run_ends_well("campaign-refresh/refresh-when-loaded")


def test_suspended_refresh_is_resumed_when_its_review_is_over(
    campaigns: Callable[[], Campaign],
) -> None:
    one = campaigns()
    run = one.refresh(review="suspend")
    becomes(run, "Suspended")
    resume_reviewed()
    becomes(run, "Suspended")
    approve(one.seeded.campaign_id)
    resume_reviewed()
    becomes(run, "Completed")
    one.is_refreshed_once()
