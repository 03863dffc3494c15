"""Forms of deployments, as Prefect stores them: its UI draws them from the schema of parameters."""

from itertools import groupby
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.dispatch import get_registry_for_type

from blocks.saved import slug_reference
from deployments.server import block_types
from flows.customers import sync_customers
from flows.export import export_messages
from flows.options import GROUPS, RefreshOptions
from flows.plan import plan_refresh
from flows.portfolio import portfolio_refresh
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from flows.retention import lake_retention
from tests.support.deployed import Deployed, deploy

GROUPED = [
    campaign_refresh,
    plan_refresh,
    portfolio_refresh,
    sync_customers,
    export_messages,
    publish_campaign,
    lake_retention,
]
TUNING = ("downloads", "export_minutes", "rerun_minutes")

Fields = dict[str, dict[str, Any]]


def deployed_with_form(flow: Flow[..., Any]) -> Deployed:
    schema = flow.parameters.model_dump_for_openapi()
    return deploy(flow, "form", parameter_openapi_schema=schema, enforce_parameter_schema=True)


def stored(deployment_id: UUID) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        schema = client.read_deployment(deployment_id).parameter_openapi_schema
    assert schema
    return schema


def form(flow: Flow[..., Any], model: str) -> Fields:
    """The fields that a form shows of a model, in the order in which it shows them."""
    fields: Fields = stored(deployed_with_form(flow).deployment_id)["definitions"][model][
        "properties"
    ]
    positions = [field["position"] for field in fields.values()]
    assert len({*positions}) == len(positions)
    return dict(sorted(fields.items(), key=lambda each: each[1]["position"]))


@pytest.mark.parametrize("flow", GROUPED, ids=lambda flow: flow.name)
def test_form_shows_options_by_group_in_order(prefect_server: None, flow: Flow[..., Any]) -> None:
    options = flow.parameters.properties["options"]["$ref"].rpartition("/")[2]
    titles = [field["title"] for field in form(flow, options).values()]
    groups = [group for group, _ in groupby(title.partition(": ")[0] for title in titles)]
    assert groups == [group for group in GROUPS if group in groups]
    assert groups
    assert all(title.partition(": ")[2] for title in titles)


def test_form_of_a_refresh_begins_with_the_list_and_hides_tuning(prefect_server: None) -> None:
    fields = form(campaign_refresh, "RefreshOptions")
    assert [field["title"] for field in fields.values()] == [
        "Source: field mapping",
        "Source: duplicate customers",
        "Source: customer group",
        "Source: name of the customer group",
        "Source: holdout",
        "Safety: strict validation",
        "Safety: suppression list",
        "Safety: maximum age of the list",
        "Safety: guardrails",
        "Safety: unchanged list",
        "Safety: plan ID",
        "Safety: refresh already running",
        "Review: while awaiting review",
        "Review: maximum wait, in minutes",
        "Advanced: task runner",
        "Advanced: cluster",
        "Advanced: hand-over file",
        "Advanced: copy to a table",
    ]
    assert {*RefreshOptions.model_fields} - {*fields} == {*TUNING}


def test_form_of_retention_begins_with_the_dry_run(prefect_server: None) -> None:
    assert next(iter(form(lake_retention, "RetentionOptions"))) == "dry_run"


@pytest.mark.parametrize("block", block_types(), ids=lambda block: block.__name__)
def test_form_of_a_block_has_an_order(block: Any) -> None:
    fields: Fields = block.model_json_schema()["properties"]
    assert [field["position"] for field in fields.values()] == [*range(len(fields))]


@pytest.mark.parametrize("block", block_types(), ids=lambda block: block.__name__)
def test_form_of_a_block_shows_every_field(block: Any) -> None:
    """Prefect's form removes what it does not show when a person saves the block."""
    assert {*block.model_json_schema()["properties"]} == {*block.model_fields}


def test_catalog_of_prefect_offers_only_blocks_that_a_person_can_fill_in() -> None:
    known = [*(get_registry_for_type(Block) or {}).values()]
    rooms = ("blocks.", "prefect.blocks.abstract")
    assert {each for each in known if each.__module__.startswith(rooms)} == {*block_types()}


def test_tuning_is_taken_and_checked_though_no_form_shows_it(prefect_server: None) -> None:
    deployed = deployed_with_form(campaign_refresh)
    blocks = {"account": "nudgescribe-account", "crm": "sql-crm", "lake": "data-lake"}
    needed: dict[str, Any] = {"campaign_id": "c"}
    needed |= {name: slug_reference(f"{slug}/main") for name, slug in blocks.items()}
    tuned = {"downloads": 8, "export_minutes": 90, "rerun_minutes": 500, "review": "suspend"}
    assert deployed.plan({**needed, "options": tuned})
    for wrong in ({"downloads": 0}, {"downlods": 8}):
        with pytest.raises(PrefectHTTPStatusError, match="options"):
            deployed.plan({**needed, "options": wrong})
