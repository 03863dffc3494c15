import pytest

from tests.conformance import lists
from tests.conformance.lists import where
from tests.conformance.statements import DOC, OURS, statements_of
from tests.conformance.wire import UNKNOWN, Account, Object, has_shape, utc

states = statements_of("Customer groups")

MORE_THAN_A_PAGE = 120


def seen(account: Account, group: Object) -> Object:
    """Return the group as the list has it."""
    which = group["customer_group_id"]
    (found,) = [one for one in account.groups() if one["customer_group_id"] == which]
    return found


def create(account: Account, name: str, **more: str) -> Object:
    body = {"workspace_id": account.access.workspace_id, "name": name, **more}
    return account.ask("/v1/cg", body, verb="PUT")


def update(account: Account, group: Object, **changes: str) -> Object:
    body = {"customer_group_id": group["customer_group_id"], **changes}
    return account.ask("/v1/cg", body, verb="PATCH")


def delete(account: Account, group: Object) -> None:
    body = {"customer_group_id": group["customer_group_id"]}
    account.ask("/v1/cg", body, verb="DELETE")


@states(
    "Group object `{customer_group_id, workspace_id, name, description, customer_count, "
    "created_at, updated_at}`",
    OURS,
)
def test_group_object_has_its_names_and_types(account: Account, group: Object) -> None:
    assert has_shape(
        group,
        customer_group_id=str,
        workspace_id=str,
        name=str,
        description=str | None,
        customer_count=int,
        created_at=str,
        updated_at=str,
    )
    assert utc(group["created_at"]) <= utc(group["updated_at"])
    assert (group["workspace_id"], group["customer_count"]) == (account.access.workspace_id, 0)


@states("`/v1/cg` PUT create", DOC)
def test_create_group_adds_it(account: Account, group: Object) -> None:
    assert seen(account, group) == group


@states("create `{workspace_id, name, description?}`", OURS)
def test_group_description_is_optional(account: Account, group: Object) -> None:
    assert group["description"] is None
    described = create(account, lists.unique_name(), description="For one test")
    assert described["description"] == "For one test"


@states("`/v1/cg` POST list all: `{workspace_id}` -> `{groups: [...]}`", OURS)
def test_list_groups_is_of_the_workspace(account: Account, group: Object) -> None:
    groups = account.groups()
    assert {one["workspace_id"] for one in groups} == {account.access.workspace_id}
    assert {group["customer_group_id"], account.access.customer_group_id} <= {
        one["customer_group_id"] for one in groups
    }


@states("an unknown workspace: 401 `Invalid Workspace`, of groups as of fields", DOC)
def test_group_of_an_unknown_workspace_is_refused(account: Account) -> None:
    for verb, more in (("POST", {}), ("PUT", {"name": "x"})):
        answer = account.refused("/v1/cg", {"workspace_id": UNKNOWN, **more}, verb=verb)
        assert answer == (401, "Invalid Workspace")


@pytest.mark.sandbox
@states("list: not paged", DOC)
def test_list_groups_is_not_paged(fresh: Account) -> None:
    names = [create(fresh, f"group {number}")["name"] for number in range(MORE_THAN_A_PAGE)]
    assert {*names} <= {one["name"] for one in fresh.groups()}


@states("Group object: `customer_count`", OURS)
def test_group_counts_its_customers(account: Account, group: Object) -> None:
    lists.upload(account, group, lists.customers(account, ["1", "2", "3"]))
    assert seen(account, group)["customer_count"] == 3


@states("Name unique within a workspace, else 400 `Customer group already exists.`", OURS)
def test_create_group_with_a_used_name_is_refused(account: Account, group: Object) -> None:
    body = {"workspace_id": account.access.workspace_id, "name": group["name"]}
    answer = account.refused("/v1/cg", body, verb="PUT")
    assert answer == (400, "Customer group already exists.")


@states("Name unique within a workspace, also when a group is renamed", OURS)
def test_rename_to_a_used_name_is_refused(account: Account, group: Object) -> None:
    other = create(account, lists.unique_name())
    body = {"customer_group_id": other["customer_group_id"], "name": group["name"]}
    answer = account.refused("/v1/cg", body, verb="PATCH")
    assert answer == (400, "Customer group already exists.")
    assert seen(account, other) == other


@pytest.mark.sandbox
@states("Name unique *within a workspace*: another may have the same", OURS)
def test_group_name_may_repeat_in_another_workspace(stranger: Account, group: Object) -> None:
    assert create(stranger, group["name"])["name"] == group["name"]


@states("`/v1/cg` PATCH update", DOC)
def test_update_group_changes_it(account: Account, group: Object) -> None:
    changes = {"name": lists.unique_name(), "description": "Another"}
    updated = update(account, group, **changes)
    assert utc(updated["updated_at"]) > utc(group["updated_at"])
    assert updated == {**group, **changes, "updated_at": updated["updated_at"]}
    assert seen(account, group) == updated


@states("Update keeps customer assignments", DOC)
def test_update_group_keeps_its_customers(account: Account, group: Object) -> None:
    lists.upload(account, group, lists.customers(account, ["1", "2"]))
    before = lists.profiles(account, group)
    assert update(account, group, name=lists.unique_name())["customer_count"] == 2
    assert lists.profiles(account, group) == before


@states("`/v1/cg` DELETE: delete is permanent", DOC)
def test_delete_group_is_permanent(account: Account, group: Object) -> None:
    lists.upload(account, group, lists.customers(account, ["1"]))
    delete(account, group)
    assert group["customer_group_id"] not in {one["customer_group_id"] for one in account.groups()}
    assert account.refused("/v1/customer/pages", where(account, group))[0] == 404
    body = {"customer_group_id": group["customer_group_id"]}
    assert account.refused("/v1/cg", body, verb="DELETE")[0] == 404
    again = create(account, group["name"])
    assert (lists.count(account, again), again["customer_count"]) == (0, 0)
