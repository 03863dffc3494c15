"""A group kept equal to the CRM's list, without a rerun."""

import json

import polars as pl
import pytest

from flows.customers import sync_customers
from flows.options import RefreshOptions, SyncOptions
from flows.refresh import campaign_refresh
from nudgescribe.errors import AuthError, NotFound
from tasks.campaigns import GroupInUse
from tasks.customers.guardrails import Guardrails, ListGuardrails, ShrunkTooMuch, TooManyRejected
from tasks.customers.mapping import FieldSource
from tasks.customers.sync import ListDiff
from tests.conftest import Company, Save, Saved, customers
from tests.support.deployed import events_of

GROUP = "Everyone, daily"


def sync(company: Company, saved: Saved, **options: object) -> ListDiff:
    return sync_customers(
        company.seeded.workspace_id,
        GROUP,
        **saved.blocks,
        options=SyncOptions.model_validate(options),
    )


def held(company: Company, name: str = GROUP) -> dict[str, str]:
    """The last name of every customer of a group."""
    with company.client() as client:
        workspace = company.seeded.workspace_id
        groups = {one.name: one.customer_group_id for one in client.list_groups(workspace)}
        everyone = client.customers(workspace, groups[name])
        return {one.customer_id: str(one.profile["last_name"] or "") for one in everyone}


def test_sync_makes_group_equal_to_list(reviewed_company: Company, save: Save) -> None:
    company, first = reviewed_company, customers(40)
    saved = save(company, first)
    assert sync(company, saved) == ListDiff(added=40, changed=0, removed=0, unchanged=0)
    assert sync(company, saved) == ListDiff(added=0, changed=0, removed=0, unchanged=40)

    moved = pl.when(pl.col("customer_id") <= "000010").then(pl.lit("New")).otherwise("last_name")
    second = customers(45).slice(5).with_columns(moved.alias("last_name"))
    second.write_csv(saved.crm_file)
    assert sync(company, saved) == ListDiff(added=5, changed=5, removed=5, unchanged=30)
    assert held(company) == dict(second.select("customer_id", "last_name").rows())
    assert list((saved.root / "staging").iterdir()) == []

    # A refresh on that group sends what differs, its next one may not use it again.
    customers(46).slice(5).write_csv(saved.crm_file)
    options = RefreshOptions(group="reuse", group_name=GROUP, guardrails=Guardrails(max_shrink=1))
    result = campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)
    assert (result.group, result.rows, result.run_number) == (GROUP, 41, 2)
    assert len(held(company)) == 41
    with pytest.raises(GroupInUse, match=f"is on group '{GROUP}' already"):
        campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)
    assert len(company.history()) == 2

    group = company.history()[0].customer_group_id
    told = events_of("nudgeflow.customers.synced", f"nudgeflow.group.{group}", 3)
    none = dict.fromkeys(("changed", "removed", "unchanged", "rejected"), 0)
    assert told[-1]["payload"] == {"added": 40, **none}
    asset = f"nudgescribe://{saved.name}/groups/{group}"
    made = events_of("prefect.asset.materialization.succeeded", asset, 4)
    crm = f"crm://{saved.crm.block_slug.replace('/', '/lists/')}"
    for each in made:
        assert crm in {one["prefect.resource.id"] for one in each["related"]}
    assert "customer_id" not in json.dumps([told, made])


def test_sync_changes_nothing_when_stopped(company: Company, save: Save) -> None:
    saved = save(company, customers(30, invalid_every=5))
    with pytest.raises(TooManyRejected, match="6 of 30 rows"):
        sync(company, saved)
    assert company.groups() == ["First customers"]
    customers(30).write_csv(saved.crm_file)
    assert sync(company, saved).added == 30
    customers(20).write_csv(saved.crm_file)
    with pytest.raises(ShrunkTooMuch, match="20 customers, down from 30"):
        sync(company, saved)
    saved.save_account(company.account(profile_key=None))
    with pytest.raises(AuthError, match="no profile key"):
        sync(company, saved, guardrails=ListGuardrails(max_shrink=1))
    assert len(held(company)) == 30
    assert list((saved.root / "staging").iterdir()) == []


def test_sync_maps_columns_to_fields(company: Company, save: Save) -> None:
    listed = customers(10).select(
        pl.col("customer_id").alias("Id"),
        pl.col("first_name"),
        pl.col("birthday").str.to_date("%d/%m/%Y").dt.strftime("%b %d, %Y").alias("Born"),
        pl.lit("not sent").alias("Notes"),
    )
    saved = save(company, listed)
    fields = {
        "customer_id": FieldSource(column="Id"),
        "first_name": FieldSource(),
        "birthday": FieldSource(column="Born", date_format="MMM dd, yyyy"),
        "plan": FieldSource(constant="basic"),
        "region": FieldSource(constant="North"),
    }
    assert sync(company, saved, fields=fields).added == 10
    with company.client() as client:
        group = client.list_groups(company.seeded.workspace_id)[-1]
        one = next(client.customers(group.workspace_id, group.customer_group_id))
    expected = customers(10).row(0, named=True)
    assert {name: value for name, value in one.profile.items() if value} == {
        "customer_id": "000001",
        "first_name": expected["first_name"],
        "birthday": expected["birthday"],
        "plan": "basic",
        "region": "North",
    }


def test_sync_fails_when_workspace_is_unknown(company: Company, save: Save) -> None:
    saved = save(company, customers(5))
    with pytest.raises(NotFound, match="Invalid Workspace"):
        sync_customers("nowhere", GROUP, **saved.blocks)
