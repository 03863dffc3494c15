"""Plans that no longer fit, and campaigns that lost what a plan compares with."""

import pytest

from nudgescribe.client import NudgescribeClient
from sandbox import demo_customers
from tasks.campaigns import CampaignRef, find_campaign
from tasks.customers.guardrails import Guardrails
from tasks.customers.mapping import FieldMapping
from tasks.customers.validate import Validated, validate_customers
from tasks.journal.refresh import Refresh
from tasks.refresh.plan import (
    Plan,
    PlanDamaged,
    PlanNotFound,
    PlanOutdated,
    Share,
    check_plan,
    make_plan,
    path_of,
)
from tasks.refresh.preview import compare_with_run
from tests.conftest import SEEDED_CUSTOMERS, Company, customers
from tests.tasks.conftest import Local


@pytest.fixture
def campaign(company: Company, local: Local, refresh: Refresh) -> CampaignRef:
    return find_campaign.fn(
        local.account, company.seeded.campaign_id, local.lake, refresh, "New", False
    )


@pytest.fixture
def validated(
    company: Company, client: NudgescribeClient, local: Local, refresh: Refresh
) -> Validated:
    mapping = FieldMapping(rules=client.list_fields(company.seeded.workspace_id), sources={})
    staged = local.staged(customers(250))
    return validate_customers.fn(mapping, staged, local.lake, refresh, "campaign_id=C")


@pytest.fixture
def plan(local: Local, campaign: CampaignRef, validated: Validated, refresh: Refresh) -> Plan:
    return make_plan.fn(local.account, campaign, validated, local.lake, refresh, Guardrails())


def test_plan_is_outdated_when_list_or_run_differs(
    local: Local, plan: Plan, campaign: CampaignRef, validated: Validated
) -> None:
    check_plan.fn(local.lake, plan.plan_id, campaign, validated)
    other = validated.model_copy(update={"fingerprint": "other"})
    with pytest.raises(PlanOutdated, match="250 accepted rows then, 250 now, or other"):
        check_plan.fn(local.lake, plan.plan_id, campaign, other)
    later = campaign.model_copy(update={"previous_run": 2})
    with pytest.raises(PlanOutdated, match="made on run 1 of the campaign, which is on run 2"):
        check_plan.fn(local.lake, plan.plan_id, later, validated)
    with pytest.raises(PlanNotFound, match=r"no plan \.\./x of campaign"):
        check_plan.fn(local.lake, "../x", campaign, validated)
    local.lake.files.write(f"{path_of(campaign, 'cut')}.json", b'{"plan_id": "cut"')
    with pytest.raises(PlanDamaged, match="Plan cut .* cut off"):
        check_plan.fn(local.lake, "cut", campaign, validated)


def test_plan_counts_customers_of_segments(local: Local, plan: Plan) -> None:
    student = customers(250).filter(plan="student").height
    assert plan.matched == Share(segments=12, customers=250 - student)
    assert plan.new == Share(segments=4, customers=student)
    before = demo_customers.customers(SEEDED_CUSTOMERS, demo_customers.PLANS_BEFORE)
    left = sum(customer["plan"] == "legacy" for customer in before)
    assert plan.orphaned == Share(segments=4, customers=left)
    assert (plan.messages, plan.quota) == (4, 254)


@pytest.mark.parametrize("gone", ["deleted", None])
def test_plan_has_no_changes_without_previous_group(
    local: Local,
    campaign: CampaignRef,
    validated: Validated,
    refresh: Refresh,
    gone: str | None,
) -> None:
    lost = campaign.model_copy(update={"previous_group": gone})
    plan = make_plan.fn(
        local.account, lost, validated, local.lake, refresh, Guardrails(max_growth=0)
    )
    assert (plan.changes, plan.stops, plan.orphaned.segments) == (None, [], 4)
    assert plan.orphaned.customers == 0
    compared = compare_with_run.fn(local.account, lost, validated, local.lake)
    assert (compared.before, compared.orphaned) == (None, 4)
