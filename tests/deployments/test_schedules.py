"""Deploying arms nothing and disarms nothing: what is on and off is for people to say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
from prefect.states import Completed

from deployments import deploy as tool
from deployments.command import app as command
from deployments.deploy import NotDeployed
from deployments.project import full_name, read_config
from deployments.schedules import NotScheduled, read_switches
from deployments.server import find, upsert_pool
from flows.refresh import campaign_refresh
from flows.review import resume_reviewed
from tests.support.deployed import Deployed, deploy

ROOT = Path(__file__).parents[2]
NAMES = ("refresh-monthly", "refresh-when-loaded", "resume-reviewed")
MONTHLY, LOADED, REVIEWS = NAMES
OLD = "campaign-refresh/monthly"


@pytest.fixture
def project(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with some of the deployments, each with a schedule or a trigger."""
    config = read_config(ROOT / "prefect.yaml")
    listed = [one for one in config["deployments"] if one["name"] in NAMES]
    config["deployments"] = [{**one, "parameters": {}} for one in listed]  # no block is saved
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    monkeypatch.setenv("PREFECT_HOME", str(PREFECT_HOME.value()))
    monkeypatch.setenv("NUDGEFLOW_CAMPAIGN_ID", "c")
    with get_client(sync_client=True) as client:
        upsert_pool(client, None)
        yield tmp_path
        for name in (*map(full_name, config["deployments"]), OLD):
            if there := find(client.read_deployment_by_name, name):
                client.delete_deployment(there.id)


def change(project: Path, **values: Any) -> None:
    """Gives the first deployment of prefect.yaml other values."""
    config = read_config()
    config["deployments"][0].update(values)
    (project / "prefect.yaml").write_text(yaml.safe_dump(config))


def on() -> dict[str, bool | None]:
    with get_client(sync_client=True) as client:
        return {each.name: each.on for each in read_switches(client, read_config()["deployments"])}


def old(flow: Any, name: str, slug: str, *, active: bool) -> Deployed:
    """A deployment as version 0.1 called it, with its schedule."""
    schedule = CronSchedule(cron="0 6 1 * *", timezone="Europe/London")
    create = DeploymentScheduleCreate(schedule=schedule, active=active, slug=slug)
    entrypoint = f"{flow.fn.__module__}.{flow.fn.__name__}"
    return deploy(flow, name, schedules=[create], entrypoint=entrypoint)


def test_schedules_are_off_until_switched_on_and_stay_so_when_deployed_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert on() == dict.fromkeys(NAMES)
    with pytest.raises(NotScheduled, match="called refresh-monthly; deployed are: none"):
        command.schedule("on", MONTHLY)
    command.deploy()
    assert on() == {MONTHLY: False, LOADED: False, REVIEWS: True}
    assert capsys.readouterr().out.split()[-6:] == ["off", MONTHLY, "off", LOADED, "on", REVIEWS]

    with pytest.raises(NotScheduled, match=f"called monthly; deployed are: {', '.join(NAMES)}"):
        command.schedule("on", MONTHLY, "monthly")
    command.schedule("on", MONTHLY, LOADED)
    command.schedule("off", REVIEWS)
    wanted = {MONTHLY: True, LOADED: True, REVIEWS: False}
    assert on() == wanted
    assert list(tool.deploy()) == []
    assert on() == wanted

    with get_client(sync_client=True) as client:
        paused = client.read_deployment_by_name(f"campaign-refresh/{MONTHLY}")
        client.pause_deployment(paused.id)
    list(tool.deploy())
    assert on() == wanted | {MONTHLY: False}
    command.schedule("on", MONTHLY)
    assert on() == wanted


def test_schedules_that_people_have_added_stay(project: Path) -> None:
    daily = CronSchedule(cron="0 7 * * *", timezone="Europe/London")
    added = DeploymentScheduleCreate(schedule=daily, active=True, parameters={"campaign_id": "d"})
    before = old(campaign_refresh, "monthly", "first-of-month", active=False)
    with get_client(sync_client=True) as client:
        client.create_deployment_schedules(before.deployment_id, [added])
        for _ in range(2):
            list(tool.deploy())
            now = client.read_deployment_by_name(f"campaign-refresh/{MONTHLY}")
            ours, theirs = sorted(now.schedules, key=lambda each: each.slug is None)
            assert (ours.slug, ours.active) == ("first-of-month", False)
            assert (theirs.schedule, theirs.active) == (daily, True)
            assert theirs.parameters == {"campaign_id": "d"}


def test_schedules_that_people_have_added_stay_where_prefect_yaml_has_none(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(project, schedules=[])
    daily = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 7 * * *"), active=True)
    list(tool.deploy())
    with get_client(sync_client=True) as client:
        there = client.read_deployment_by_name(f"campaign-refresh/{MONTHLY}")
        client.create_deployment_schedules(there.id, [daily])
        list(tool.deploy())
        (schedule,) = client.read_deployment(there.id).schedules
    assert schedule.schedule == daily.schedule
    assert "Warning" not in capfd.readouterr().err


def test_schedule_that_prefect_yaml_no_longer_has_is_removed(project: Path) -> None:
    list(tool.deploy())
    command.schedule("on", MONTHLY)
    change(project, schedules=[])
    list(tool.deploy())
    with get_client(sync_client=True) as client:
        assert client.read_deployment_by_name(f"campaign-refresh/{MONTHLY}").schedules == []


def test_deploying_says_why_prefect_could_not(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(project, work_pool={"name": "nowhere"})
    with pytest.raises(NotDeployed, match="Prefect could not deploy what prefect.yaml lists"):
        list(tool.deploy())
    said = " ".join(capfd.readouterr().err.split())
    assert "references work pool 'nowhere' which does not exist" in said


def test_deployment_of_others_with_an_old_name_stays(project: Path) -> None:
    entrypoint = "other/flows.py:reviews"
    other = deploy(resume_reviewed, "every-five-minutes", entrypoint=entrypoint)
    list(tool.deploy())
    with get_client(sync_client=True) as client:
        assert client.read_deployment(other.deployment_id).entrypoint == entrypoint
        client.delete_deployment(other.deployment_id)


def test_deployment_of_an_old_name_is_replaced_with_its_state(project: Path) -> None:
    old(resume_reviewed, "every-five-minutes", "every-five-minutes", active=False)
    monthly = old(campaign_refresh, "monthly", "first-of-month", active=True)
    asleep = monthly.plan({"campaign_id": "c"})
    said = list(tool.deploy())
    removed = (
        "resume-reviewed/every-five-minutes: removed, it is resume-reviewed/resume-reviewed now"
    )
    assert said == [
        f"{OLD}: has an open flow run; deploy again once it has ended, to remove it",
        removed,
    ]
    assert on() == {MONTHLY: True, LOADED: False, REVIEWS: False}
    with get_client(sync_client=True) as client:
        (schedule,) = client.read_deployment(monthly.deployment_id).schedules
        assert not schedule.active
        assert [run.id for run in monthly.runs()] == [asleep]
        client.set_flow_run_state(asleep, Completed(), force=True)
        said = list(tool.deploy())
        assert said == [f"{OLD}: removed, it is campaign-refresh/{MONTHLY} now"]
        assert find(client.read_deployment_by_name, OLD) is None
    assert on()[MONTHLY]
