"""A group brought to a list."""

import json
from collections import Counter
from pathlib import Path

import httpx
import polars as pl
import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nudgescribe.client import NudgescribeClient
from sandbox import demo_customers, seed
from sandbox.data.models import Group, Workspace
from tasks.campaigns import GroupBusy, find_campaign
from tasks.customers import sync as tasks
from tasks.customers import upload
from tasks.customers.sync import ListDiff, _shares, diff_lists, update_customers
from tasks.customers.upload import GroupRef, UploadIncomplete, find_group, find_or_create_group
from tests.conftest import Company, Through, customers
from tests.support.response_tamperer import ResponseTamperer
from tests.tasks.conftest import Local, new_refresh
from tests.tasks.customers.test_upload import UPLOAD, queued

CUSTOMERS = "/v1/customer"
VALUES = st.fixed_dictionaries(dict.fromkeys("ab", st.one_of(st.none(), st.text(max_size=3))))
STATES = ("added", "changed", "removed", "unchanged")
LISTS = st.dictionaries(st.sampled_from("0123456789"), VALUES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LISTS, LISTS)
def test_diff_compares_customer_by_customer(
    tmp_path: Path, listed: dict[str, dict[str, str]], held: dict[str, dict[str, str]]
) -> None:
    files = []
    for name, one in (("listed", listed), ("held", held)):
        rows = [{"*": customer, **values} for customer, values in one.items()]
        files.append(tmp_path / name)
        pl.DataFrame(rows, dict.fromkeys("*ab", pl.String)).write_parquet(files[-1])

    def state(customer: str) -> str:
        if customer not in held:
            return "added"
        if customer not in listed:
            return "removed"
        ours, theirs = listed[customer], held[customer]
        return "unchanged" if all((ours[n] or "") == (theirs[n] or "") for n in "ab") else "changed"

    found = dict(pl.concat(_shares(*files, "*")).select("id", "change").rows())
    assert found == {customer: state(customer) for customer in listed | held}
    counts = Counter(found.values())
    assert diff_lists(*files, "*").model_dump() == {name: counts[name] for name in STATES}


@pytest.fixture
def group(company: Company, local: Local) -> GroupRef:
    return find_or_create_group.fn(local.account, company.seeded.workspace_id, "Daily")


def update(local: Local, group: GroupRef, listed: pl.DataFrame) -> ListDiff:
    staged = local.staged(listed)
    return update_customers.fn(
        local.account, group, staged, "customer_id", local.lake, new_refresh()
    )


def test_sync_sends_differences_only(
    local: Local, group: GroupRef, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CUSTOMERS_HELD", 7)
    monkeypatch.setattr(tasks, "REMOVED_AT_ONCE", 4)
    monkeypatch.setattr(upload, "ROWS_SENT", 8)
    transport = through(ResponseTamperer())
    assert update(local, group, customers(20)).added == 20
    assert transport.calls[UPLOAD] == 3

    transport.requests.clear()
    assert update(local, group, customers(20)) == ListDiff(
        added=0, changed=0, removed=0, unchanged=20
    )
    assert not [r for r in transport.requests if r.method == "DELETE" or r.url.path == UPLOAD]

    changed = customers(11).with_columns(
        plan=pl.when(pl.col("customer_id") == "000003").then(pl.lit("x")).otherwise("plan")
    )
    assert update(local, group, changed) == ListDiff(added=0, changed=1, removed=9, unchanged=10)
    (sent,) = (r for r in transport.requests if r.url.path == UPLOAD)
    assert sent.read().count(b"\r\n0000") == 1
    assert [r.method for r in transport.requests if r.url.path == CUSTOMERS].count("DELETE") == 3


def test_sync_compares_numbers_as_text(
    company: Company,
    client: NudgescribeClient,
    local: Local,
    group: GroupRef,
    through: Through,
) -> None:
    one = {**customers(1).row(0, named=True), "visits": 7, "balance": 1.5, "grade": None}
    client.upload_customer(group.workspace_id, group.customer_group_id, one)
    same = customers(1).with_columns(visits=pl.lit("7"), balance=pl.lit("1.5"), grade=pl.lit(""))
    assert update(local, group, same).unchanged == 1
    # Other services may tell them as numbers.
    secret = Fernet(company.seeded.profile_key).encrypt(json.dumps(one).encode()).decode()
    page = {"customers": [{"customer_id": "000001", "profile": secret}], "num_pages": 1}
    through(ResponseTamperer({CUSTOMERS: [httpx.Response(200, json={**page, "page": 0})]}))
    assert update(local, group, same).unchanged == 1


def test_sync_waits_for_background_uploads(
    local: Local, group: GroupRef, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert update(local, group, customers(5)).added == 5
    moved = customers(5).with_columns(plan=pl.lit("moved"))
    # Worked off, though the answer is that it will be.
    through(ResponseTamperer(after={UPLOAD: [queued(0)]}))
    assert update(local, group, moved).changed == 5
    # Never worked off.
    monkeypatch.setattr(upload, "SETTLE_SECONDS", 0)
    through(ResponseTamperer({UPLOAD: [queued(0)]}))
    with pytest.raises(UploadIncomplete, match="still differs from the list"):
        update(local, group, customers(5))


def test_sync_waits_when_only_one_upload_is_completed(
    local: Local, group: GroupRef, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(upload, "ROWS_SENT", 5)
    update(local, group, customers(10))
    through(ResponseTamperer({UPLOAD: [queued(5)]}))
    moved = customers(10).with_columns(plan=pl.lit("moved"))
    with pytest.raises(UploadIncomplete, match="0 customers of the list are missing, 5 differ, 0"):
        update(local, group, moved)
    assert update(local, group, moved) == ListDiff(added=0, changed=5, removed=0, unchanged=5)


def test_sync_fails_when_removed_customers_remain(
    local: Local, group: GroupRef, through: Through
) -> None:
    update(local, group, customers(5))
    kept = httpx.Response(200, json={"deleted": 2})
    # Calls to the path: the customers held, then those who left.
    through(ResponseTamperer({CUSTOMERS: [None, kept]}))
    with pytest.raises(UploadIncomplete, match="has 5 customers, not 3"):
        update(local, group, customers(3))


def second_campaign(company: Company) -> str:
    """Published, too, on the same first customers."""
    context, seeded = company.sandbox.context, company.seeded
    with context.store.write() as session:
        workspace = session.get_one(Workspace, seeded.workspace_id)
        group = session.get_one(Group, seeded.customer_group_id)
        parts = (workspace, group, demo_customers.VARIABLES, demo_customers.TEMPLATE)
        return seed._published_campaign(session, context.keys, *parts).id


def test_group_is_busy_while_unpublished_run_is_on_it(
    company: Company, client: NudgescribeClient, local: Local, group: GroupRef
) -> None:
    workspace = company.seeded.workspace_id
    assert find_group.fn(local.account, workspace, "Daily", local.lake) == group
    update(local, group, customers(2).with_columns(plan=pl.lit("new")))
    client.initiate_rerun(company.seeded.campaign_id, group.customer_group_id)
    company.settle(client)
    with pytest.raises(GroupBusy, match="is Ready for review on group 'Daily'"):
        find_group.fn(local.account, workspace, "Daily", local.lake)
    ours = new_refresh()
    with pytest.raises(GroupBusy, match="is Ready for review on group 'Daily'"):
        find_campaign.fn(local.account, second_campaign(company), local.lake, ours, "Daily", True)
    assert find_group.fn(local.account, workspace, "First customers", local.lake) is not None
    assert find_group.fn(local.account, workspace, "Nobody's", local.lake) is None
