"""A plan's numbers against what the service reports after the refresh."""

import sys

import polars as pl
import pytest

from flows.options import RefreshOptions
from flows.plan import plan_refresh
from flows.refresh import campaign_refresh
from sandbox import seed
from sandbox.data.models import Usage
from sandbox.engine.quota import current_window
from tasks.customers.guardrails import Guardrails
from tasks.refresh.plan import PlanOutdated
from tasks.ui.artifacts import artifact_key
from tests.conftest import Company, Sandbox, Save, customers
from tests.support.artifacts import all_artifacts


def page_of(company: Company) -> str:
    """The page of the campaign's plan in Prefect's UI, which has a table, too."""
    artifacts = {one.key: one for one in all_artifacts()}
    key = artifact_key("plan", "Welcome back", company.seeded.campaign_id)
    assert artifacts[f"{key}-numbers"].type == "table"
    page = artifacts[key].data
    assert isinstance(page, str)
    return page


def test_plan_has_the_numbers_of_the_service(reviewed_sandbox: Sandbox, save: Save) -> None:
    company = Company(reviewed_sandbox, seed.seed(reviewed_sandbox.context, 200))
    # Some come, some go, some move to another plan, some are rejected.
    listed = customers(230, invalid_every=60).slice(15)
    saved = save(company, listed)
    options = RefreshOptions(guardrails=Guardrails(max_growth=2))
    before = held(company, company.seeded.customer_group_id)
    plan = plan_refresh(company.seeded.campaign_id, **saved.blocks, options=options)
    assert (len(company.history()), company.groups()) == (1, ["First customers"])
    assert (plan.current_run, plan.stops, list((saved.root / "staging").iterdir())) == (1, [], [])

    by_plan = options.model_copy(update={"plan_id": plan.plan_id})
    result = campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=by_plan)
    run = company.history()[0]
    summary = run.comparison_summary
    assert summary is not None
    assert (plan.matched.segments, plan.new.segments, plan.orphaned.segments) == (
        summary.matched,
        summary.new,
        summary.orphaned,
    )
    assert plan.messages == summary.new > 0
    after = held(company, result.customer_group_id)
    assert plan.changes is not None
    assert plan.changes.model_dump() == {
        "added": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
        "changed": sum(before[one] != after[one] for one in before.keys() & after.keys()),
        "unchanged": sum(before[one] == after[one] for one in before.keys() & after.keys()),
    }
    assert min(plan.changes.model_dump().values()) > 0
    assert (plan.accepted, plan.rejected) == (result.accepted, result.rejected)
    assert plan.new.customers == result.customers_in_new
    assert plan.matched.customers + plan.new.customers == len(after)
    assert plan.quota == used(company)
    segments = pl.read_parquet(next(saved.root.glob("plans/*/*-segments.parquet")))
    assert segments["customers"].sum() == len(after)
    assert segments["before"].sum() <= len(before)
    assert next(saved.root.glob("plans/*/*.png")).read_bytes().startswith(b"\x89PNG")

    with pytest.raises(PlanOutdated, match="made on run 1 of the campaign, which is on run 2 now"):
        campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=by_plan)
    assert len(company.history()) == 2


def test_plan_without_the_extra_charts_has_no_picture(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    saved = save(company, customers(100))
    plan = plan_refresh(company.seeded.campaign_id, **saved.blocks)
    assert {path.suffix for path in saved.root.glob("plans/*/*")} == {".json", ".parquet"}
    assert plan.accepted == 100
    assert 'the extra charts draws it, `pip install "nudgeflow[charts]"`.' in page_of(company)


def test_plan_lists_guardrails_that_stop(company: Company, save: Save) -> None:
    saved = save(company, customers(100, invalid_every=10))
    plan = plan_refresh(company.seeded.campaign_id, **saved.blocks)
    assert [stop.partition(",")[0] for stop in plan.stops] == [
        "10 of 100 rows were rejected",
        "The list has 90 customers",
    ]
    page = page_of(company)
    assert "- 10 of 100 rows were rejected, more than 5.0%." in page
    assert "| customers removed | 210 |" in page
    assert "data:image/png;base64," in page


def held(company: Company, group: str) -> dict[str, object]:
    with company.client() as client:
        everyone = client.customers(company.seeded.workspace_id, group)
        return {one.customer_id: {k: v or "" for k, v in one.profile.items()} for one in everyone}


def used(company: Company) -> int:
    """Messages of the account's quota that are used up."""
    context = company.sandbox.context
    with context.store.read() as session:
        window = current_window(context.settings)
        usage = session.get_one(Usage, (company.seeded.account_id, window.number))
        return usage.total
