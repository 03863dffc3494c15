"""Odd records in the service's answers: refused by name where they matter."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from blocks.rerun import UnknownState
from nudgescribe import contract
from nudgescribe.contract import Status
from nudgescribe.errors import ContractMismatch
from sandbox.data.models import Group
from tasks import portfolio
from tasks.campaigns import RunRef, find_campaign, publish_run, refuse_busy
from tasks.customers.upload import find_group
from tasks.export.run import find_runs
from tasks.inventory import Inventory, report_inventory, take_inventory
from tasks.journal.refresh import Refresh
from tasks.retention.groups import group_candidates
from tests.conftest import Company, Through
from tests.support.response_tamperer import Change, Changed
from tests.tasks.conftest import Local

CAMPAIGNS, GROUPS, HISTORY = contract.CAMPAIGNS, contract.GROUPS, contract.RERUN_HISTORY
SIZE = contract.CUSTOMERS_PAGES
ZONELESS = "2026-11-01T10:00:00"
BOTH, TAKEN = ("refresh", "export"), None


def another_campaign(**values: object) -> Change:
    draft = {"campaign_id": "c2", "name": "A draft", "status": "Draft", **values}
    other = {"workspace_id": "w2", "name": "Another brand", "campaigns": [draft]}
    return lambda body: body["workspaces"].append(other)


def in_campaigns(**values: object) -> Change:
    return lambda body: [
        campaign.update(values)
        for workspace in body["workspaces"]
        for campaign in workspace["campaigns"]
    ]


def another_group(**values: object) -> Change:
    odd = {"customer_group_id": "g2", "name": "still importing", **values}
    return lambda body: body["groups"].append({**body["groups"][0], **odd})


def in_runs(**values: object) -> Change:
    return lambda body: [run.update(values) for run in body["runs"]]


def newest(status: str) -> Change:
    return lambda body: body["runs"].insert(
        0, {**body["runs"][0], "run_number": 2, "status": status}
    )


def oldest(status: str) -> Change:
    return lambda body: body["runs"].append({**body["runs"][0], "run_number": 0, "status": status})


@pytest.mark.parametrize(
    ("path", "change", "right", "whose"),
    [
        (CAMPAIGNS, another_campaign(current_run=None), TAKEN, BOTH),
        (CAMPAIGNS, another_campaign(current_run="1", name=None, status=7), TAKEN, BOTH),
        (CAMPAIGNS, another_campaign(campaign_id=None), TAKEN, BOTH),
        (CAMPAIGNS, lambda body: body["workspaces"].insert(0, {"workspace_id": 7}), TAKEN, BOTH),
        (CAMPAIGNS, lambda body: body["workspaces"][0]["campaigns"].insert(0, "odd"), TAKEN, BOTH),
        (CAMPAIGNS, in_campaigns(published_at=ZONELESS), TAKEN, BOTH),
        (CAMPAIGNS, in_campaigns(current_run=None, stage=None, start_date=None), TAKEN, BOTH),
        (CAMPAIGNS, in_campaigns(start_date="2026-11-01T00:00:00Z", stage=7), TAKEN, BOTH),
        (CAMPAIGNS, in_campaigns(published_at=1793520000, end_date="soon"), TAKEN, BOTH),
        (CAMPAIGNS, in_campaigns(customer_group_id=7), "customer_group_id", BOTH),
        (CAMPAIGNS, in_campaigns(current_run="1"), "current_run", BOTH),
        (CAMPAIGNS, in_campaigns(name=None), "name", BOTH),
        (CAMPAIGNS, in_campaigns(status="published"), "state 'published'", BOTH),
        (CAMPAIGNS, lambda body: body["workspaces"][0].pop("name"), TAKEN, BOTH),
        (CAMPAIGNS, lambda body: body["workspaces"][0].update(name=None), TAKEN, BOTH),
        (CAMPAIGNS, lambda body: body.update(workspaces=None), "workspaces", BOTH),
        (GROUPS, another_group(customer_count=None, updated_at=None), TAKEN, ["refresh"]),
        (GROUPS, another_group(created_at=ZONELESS), TAKEN, ["refresh"]),
        (GROUPS, another_group(name=None, customer_group_id=7), TAKEN, ["refresh"]),
        (GROUPS, another_group(name="Ours", customer_count="9"), "customer_count", ["reuse"]),
        (GROUPS, another_group(name="Ours", description=7), "description", ["reuse"]),
        (GROUPS, another_group(name="Ours", updated_at="soon", created_at=7), TAKEN, ["reuse"]),
        (HISTORY, in_runs(started_at=ZONELESS), TAKEN, BOTH),
        (HISTORY, in_runs(started_at=None, segment_count=None, error=None), TAKEN, BOTH),
        (HISTORY, in_runs(started_at="yesterday", completed_at=1764000000), TAKEN, BOTH),
        (HISTORY, in_runs(initiated_by=7, error={"code": 1}, phase=[]), TAKEN, BOTH),
        (HISTORY, in_runs(comparison_summary=[1, 2], customer_group_name=7), TAKEN, BOTH),
        (HISTORY, lambda body: body["runs"].append(None), r"runs\.1", BOTH),
        (HISTORY, in_runs(run_number=None), "run_number", BOTH),
        (HISTORY, in_runs(customer_group_id=7), "customer_group_id", BOTH),
        (HISTORY, lambda body: body.update(runs=None), "runs", BOTH),
        (HISTORY, lambda body: body["runs"].extend(body["runs"]), TAKEN, BOTH),
        (HISTORY, oldest("Cancelled"), TAKEN, BOTH),
        (HISTORY, lambda body: body["runs"].clear(), "has no run", BOTH),
        (HISTORY, in_runs(status="Failed"), "has no run", BOTH),
        (HISTORY, newest("Cancelled"), "Run 2 of campaign .* in state 'Cancelled'", BOTH),
        (HISTORY, in_runs(status="published"), "Run 1 of campaign .* state 'published'", BOTH),
        (HISTORY, in_runs(status=""), "state ''", BOTH),
        (HISTORY, in_runs(segment_count="12"), "segment_count", BOTH),
        (SIZE, lambda body: body.update(total=1.5), "total", ["size"]),
    ],
)
def test_odd_value_is_refused_by_name_or_does_not_matter(
    company: Company,
    local: Local,
    refresh: Refresh,
    through: Through,
    path: str,
    change: Change,
    right: str | None,
    whose: list[str],
) -> None:
    account, lake, campaign_id = local.account, local.lake, company.seeded.campaign_id

    def find(reuse: bool = False) -> object:
        return find_campaign.fn(account, campaign_id, lake, refresh, "Ours", reuse)

    def size() -> object:
        with account.get_client() as client:
            return client.count_customers(
                company.seeded.workspace_id, company.seeded.customer_group_id
            )

    looks: dict[str, Callable[[], object]] = {
        "refresh": find,
        "reuse": lambda: find(reuse=True),
        "export": lambda: find_runs.fn(account, campaign_id, lake, "latest", True),
        "size": size,
    }
    through(Changed(path, change))
    for who in whose:
        if right is TAKEN:
            assert looks[who]()
            continue
        with pytest.raises(ContractMismatch, match=right):
            looks[who]()


def test_run_in_unknown_state_is_exported_by_nobody(
    company: Company, local: Local, through: Through
) -> None:
    through(Changed(HISTORY, oldest("Cancelled")))
    find = find_runs.fn
    found = find(local.account, company.seeded.campaign_id, local.lake, "all", True)
    assert [run.run_number for run in found] == [1]
    with pytest.raises(UnknownState, match="Run 0 of campaign .* 'Cancelled'"):
        find(local.account, company.seeded.campaign_id, local.lake, 0, True)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (newest("Cancelled"), UnknownState, "Run 2"),
        (lambda body: body["runs"].insert(0, None), ContractMismatch, r"runs\.0"),
    ],
    ids=["unknown state", "null"],
)
def test_run_is_not_published_when_a_later_one_is_not_known(
    company: Company,
    local: Local,
    refresh: Refresh,
    through: Through,
    change: Change,
    error: type[ContractMismatch],
    told: str,
) -> None:
    transport = through(Changed(HISTORY, change))
    run = RunRef(
        campaign_id=company.seeded.campaign_id, run_number=1, customer_group_id="", job_uid=None
    )
    with pytest.raises(error, match=told):
        publish_run.fn(local.account, run, local.lake, refresh)
    assert not transport.calls[contract.PUBLISH]


def test_group_of_odd_campaign_is_not_reused(company: Company, through: Through) -> None:
    group = company.seeded.customer_group_id
    through(Changed(CAMPAIGNS, another_campaign(customer_group_id=group, name=None)))
    with company.account().get_client() as client:
        with pytest.raises(ContractMismatch, match="campaign on group 'Ours' .* name"):
            refuse_busy(client, {group}, "Ours")


def test_size_of_group_is_counted_when_it_is_not_told(
    company: Company, local: Local, through: Through
) -> None:
    through(Changed(GROUPS, lambda body: body["groups"][0].update(customer_count=None)))
    found = find_group.fn(local.account, company.seeded.workspace_id, "First customers", local.lake)
    assert found
    assert found.size == 300


def test_portfolio_refreshes_other_campaigns_than_an_odd_one(
    company: Company, local: Local, through: Through
) -> None:
    odd = {"campaign_id": "c2", "name": None, "status": "Published"}
    through(Changed(CAMPAIGNS, lambda body: body["workspaces"][0]["campaigns"].append(odd)))
    given = portfolio.Portfolio(workspaces=[company.seeded.workspace_id])
    chosen = portfolio._choose(local.account, [given])
    assert [one.campaign_id for one in chosen.members] == [company.seeded.campaign_id]
    (left_out,) = chosen.skipped
    assert (left_out.campaign_id, left_out.succeeded) == ("c2", False)
    assert "name (string_type)" in left_out.message


def test_inventory_tells_of_odd_campaigns_and_runs(
    company: Company, local: Local, refresh: Refresh, through: Through
) -> None:
    odd = {"campaign_id": "c2", "name": None, "status": Status.DRAFT}
    through(Changed(CAMPAIGNS, lambda body: body["workspaces"][0]["campaigns"].append(odd)))
    assert len(taken(local, refresh).unexpected) == 1
    through(Changed(HISTORY, in_runs(segment_count="12")))
    second = taken(local, refresh.model_copy(update={"id": "second"}))
    assert (second.campaigns, second.runs, len(second.unexpected)) == (1, 0, 1)
    assert "segment_count" in second.unexpected[0]
    through(Changed(HISTORY, newest("Cancelled")))
    last = taken(local, refresh.model_copy(update={"id": "last"}))
    (told,) = last.unexpected
    assert f"Run 2 of campaign {company.seeded.campaign_id} is in state 'Cancelled'" in told
    report_inventory.fn(local.account, local.lake, last, refresh)
    assert "Cancelled" in local.artifacts["inventory-main"]


def test_inventory_has_workspace_without_a_name(
    local: Local, refresh: Refresh, through: Through
) -> None:
    through(Changed(CAMPAIGNS, lambda body: body["workspaces"][0].update(name=None)))
    inventory = taken(local, refresh)
    assert (inventory.campaigns, inventory.unexpected) == (1, [])
    report_inventory.fn(local.account, local.lake, inventory, refresh)
    assert local.lake.inventory().campaigns["workspace_name"].to_list() == [None]


def taken(local: Local, refresh: Refresh) -> Inventory:
    return take_inventory.fn(local.account, local.lake, [], refresh)


def test_groups_stay_while_a_campaign_of_the_workspace_cannot_be_read(
    company: Company, local: Local, refresh: Refresh, through: Through
) -> None:
    with company.client() as client:
        place = company.seeded.workspace_id, "Old", refresh.marker(reused=False)
        group = client.create_group(*place).customer_group_id
    with company.sandbox.context.store.write() as store:
        long_ago = datetime(2026, 1, 1, tzinfo=UTC)
        store.get_one(Group, group).created_at = long_ago
        store.get_one(Group, group).updated_at = long_ago

    def found() -> list[str]:
        with local.account.get_client() as client:
            now = datetime(2026, 11, 1, tzinfo=UTC)
            return [one.target for one in group_candidates(client, now, 30, {})]

    assert found() == [group]
    odd = {"campaign_id": "c2", "name": None, "status": Status.DRAFT}
    for path, change in [
        (CAMPAIGNS, lambda body: body["workspaces"][0]["campaigns"].append(odd)),
        (HISTORY, in_runs(status=None)),
        (GROUPS, lambda body: [one.update(created_at=None) for one in body["groups"]]),
    ]:
        through(Changed(path, change))
        assert found() == []
