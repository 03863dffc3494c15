import asyncio
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.server.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema

from blocks.saved import MAIN
from deployments.project import parts
from deployments.schedules import RENAMED, REVIEWS
from deployments.server import block_types
from flows.plan import plan_refresh
from flows.retention import RetentionOptions

ROOT = Path(__file__).parents[2]
LISTED = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = LISTED["deployments"]
REFERENCES = {name: LISTED["definitions"][name] for name in ("account", "crm", "lake")}
KINDS = {kind.get_block_type_slug(): kind for kind in block_types()}


def flow_of(deployment: dict[str, Any]) -> Any:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(import_module(module), name)


def names() -> list[str]:
    return [f"{flow_of(one).name}/{one['name']}" for one in DEPLOYMENTS]


FLOWS = list({flow.name: flow for flow in map(flow_of, DEPLOYMENTS)}.values())


def test_deployment_names_stay_as_people_know_them_and_differ() -> None:
    assert len({each["name"] for each in DEPLOYMENTS}) == len(DEPLOYMENTS)
    assert names() == [
        "campaign-refresh/refresh-monthly",
        "campaign-refresh/refresh-when-loaded",
        "campaign-refresh/refresh-now",
        "campaign-refresh/refresh-for-portfolio",
        "portfolio-refresh/refresh-portfolio-monthly",
        "portfolio-refresh/refresh-portfolio-now",
        "resume-reviewed/resume-reviewed",
        "publish-campaign/publish-campaign",
        "abandon-refresh/abandon-refresh",
        "plan-refresh/plan-refresh",
        "sync-customers/sync-customers-daily",
        "export-messages/export-messages",
        "erase-customers/erase-customers",
        "campaign-inventory/campaign-inventory-daily",
        "lake-retention/lake-retention-nightly",
        "lake-retention/lake-retention-now",
    ]


def test_nothing_is_on_at_first_but_the_look_at_reviews() -> None:
    on = {
        each["name"]
        for each in DEPLOYMENTS
        for starter in (*parts(each, "schedules"), *parts(each, "triggers"))
        if starter.get("active", starter.get("enabled"))
    }
    assert on == {REVIEWS}


def test_nothing_is_deleted_until_told_otherwise() -> None:
    retention = [each for each in DEPLOYMENTS if each["entrypoint"].endswith("lake_retention")]
    assert all(each["parameters"].get("options", {}).get("dry_run", True) for each in retention)
    assert RetentionOptions().dry_run


def test_old_names_lead_to_deployments_of_now() -> None:
    assert {f"{old.partition('/')[0]}/{new}" for old, new in RENAMED.items()} <= {*names()}


def test_flow_of_every_kind_has_a_deployment() -> None:
    found = {
        each.name
        for file in (ROOT / "flows").glob("*.py")
        for each in vars(import_module(f"flows.{file.stem}")).values()
        if isinstance(each, Flow)
    }
    assert found == {flow.name for flow in FLOWS}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_entrypoint_is_a_flow_that_takes_the_deployments_parameters(
    deployment: dict[str, Any],
) -> None:
    flow = flow_of(deployment)
    assert isinstance(flow, Flow)
    given = {name: saved(value) for name, value in deployment["parameters"].items()}
    if deployment["name"] == "refresh-for-portfolio":
        # They are given by the portfolio that starts it.
        given |= {"campaign_id": "c", **{name: saved(value) for name, value in REFERENCES.items()}}
    # Who abandons a refresh and why, and whom to erase, is asked for.
    asked: dict[str, Any] = {
        "abandon-refresh": {"who": "me", "why": "why"},
        "erase-customers": {"crm": saved(REFERENCES["crm"])},
    }
    flow.validate_parameters({**given, **asked.get(flow.name, {})})


def saved(value: Any) -> Any:
    """The block that a parameter refers to, of the name that bootstrap saves it under."""
    if not isinstance(value, dict) or "$ref" not in value:
        return value
    slug, _, name = value["$ref"]["block_document_slug"].partition("/")
    assert name == MAIN
    return KINDS[slug].model_construct()


def test_reference_to_a_block_of_another_kind_is_refused() -> None:
    with pytest.raises(ParameterTypeError, match="crm"):
        plan_refresh.validate_parameters(
            {"campaign_id": "c", **{name: saved(REFERENCES["lake"]) for name in REFERENCES}}
        )


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_deployment_runs_one_at_a_time(deployment: dict[str, Any]) -> None:
    assert deployment["tags"] == ["nudgescribe"]
    if deployment["name"] == "refresh-for-portfolio":
        assert "concurrency_limit" not in deployment
    else:
        assert deployment["concurrency_limit"]["limit"] == 1


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=names())
def test_schedule_comes_at_the_same_hour_in_summer_and_winter(deployment: dict[str, Any]) -> None:
    for schedule in parts(deployment, "schedules"):
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
def test_form_of_a_flow_explains_each_field(flow: Flow[..., Any]) -> None:
    assert flow.description
    assert flow.flow_run_name
    schema = parameter_schema(flow.fn)
    models = [schema.definitions[name] for name in schema.definitions]
    for fields in (schema.properties, *(model.get("properties", {}) for model in models)):
        assert not [name for name, field in fields.items() if not field.get("description")]
