from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())[
    "deployments"
]


def flow_of(deployment: dict[str, Any]) -> Any:
    path, _, name = deployment["entrypoint"].partition(":")
    return getattr(import_module(path.removesuffix(".py").replace("/", ".")), name)


def names() -> list[str]:
    return [f"{flow_of(one).name}/{one['name']}" for one in DEPLOYMENTS]


def test_the_deployments_people_know() -> None:
    assert names() == [
        "campaign-refresh/monthly",
        "campaign-refresh/ad-hoc",
        "campaign-refresh/portfolio",
        "portfolio-refresh/ad-hoc",
        "resume-reviewed/every-five-minutes",
        "publish-campaign/ad-hoc",
        "plan-refresh/ad-hoc",
        "sync-customers/daily",
        "export-messages/ad-hoc",
        "lake-retention/nightly",
    ]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_its_entrypoint_is_a_flow_that_takes_its_parameters(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    assert isinstance(flow, Flow)
    # What its name leaves open is given by whoever starts it.
    given = {"portfolio": {"campaign_id": "c"}, "portfolio-refresh": {"campaigns": []}}
    missing = given.get(deployment["name"]) or given.get(flow.name) or {}
    flow.validate_parameters({**missing, **deployment["parameters"]})


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_it_runs_one_at_a_time(deployment: dict[str, Any]) -> None:
    if deployment["name"] == "portfolio":
        assert "concurrency_limit" not in deployment
    else:
        assert deployment["concurrency_limit"]["limit"] == 1


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_its_schedules_state_their_time_zone(deployment: dict[str, Any]) -> None:
    for schedule in deployment.get("schedules", []):
        assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
