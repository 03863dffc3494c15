import asyncio
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect import Flow
from prefect.server.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())[
    "deployments"
]


def flow_of(deployment: dict[str, Any]) -> Any:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(import_module(module), name)


def names() -> list[str]:
    return [f"{flow_of(one).name}/{one['name']}" for one in DEPLOYMENTS]


FLOWS = list({flow.name: flow for flow in map(flow_of, DEPLOYMENTS)}.values())


def test_the_deployments_people_know() -> None:
    assert names() == [
        "campaign-refresh/monthly",
        "campaign-refresh/when-loaded",
        "campaign-refresh/ad-hoc",
        "campaign-refresh/portfolio",
        "portfolio-refresh/monthly",
        "portfolio-refresh/ad-hoc",
        "resume-reviewed/every-five-minutes",
        "publish-campaign/ad-hoc",
        "plan-refresh/ad-hoc",
        "sync-customers/daily",
        "export-messages/ad-hoc",
        "campaign-inventory/daily",
        "lake-retention/nightly",
        "lake-retention/ad-hoc",
    ]


def test_every_flow_has_a_deployment() -> None:
    found = {
        each.name
        for file in (ROOT / "flows").glob("*.py")
        for each in vars(import_module(f"flows.{file.stem}")).values()
        if isinstance(each, Flow)
    }
    assert found == {flow.name for flow in FLOWS}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_its_entrypoint_is_a_flow_that_takes_its_parameters(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    assert isinstance(flow, Flow)
    # The campaign is given by the portfolio that starts it.
    missing = {"campaign_id": "c"} if deployment["name"] == "portfolio" else {}
    flow.validate_parameters({**missing, **deployment["parameters"]})


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_it_runs_one_at_a_time(deployment: dict[str, Any]) -> None:
    assert deployment["tags"] == ["nudgescribe"]
    if deployment["name"] == "portfolio":
        assert "concurrency_limit" not in deployment
    else:
        assert deployment["concurrency_limit"]["limit"] == 1


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_it_comes_at_the_same_hour_in_summer_and_winter(deployment: dict[str, Any]) -> None:
    for schedule in deployment.get("schedules", []):
        if schedule["slug"] == "every-five-minutes":
            continue
        zone = ZoneInfo(schedule["timezone"])
        clock = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        year = datetime(2027, 1, 1, tzinfo=zone), datetime(2028, 1, 1, tzinfo=zone)
        dates = asyncio.run(clock.get_dates(500, *year))
        local = [date.astimezone(zone) for date in dates]
        assert len({date.timetz() for date in local}) == 1
        assert len(local) == len({date.date() for date in local}) in (12, 365)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_its_form_explains_itself(flow: Flow[..., Any]) -> None:
    assert flow.description
    assert flow.flow_run_name
    schema = parameter_schema(flow.fn)
    models = [schema.definitions[name] for name in schema.definitions]
    for fields in (schema.properties, *(model.get("properties", {}) for model in models)):
        assert not [name for name, field in fields.items() if not field.get("description")]
