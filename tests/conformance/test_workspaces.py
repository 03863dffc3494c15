"""What a workspace has: fields of customer profiles, and customer groups."""

import pytest

from tests.conformance import DOC, OURS, lists, statements_of
from tests.conformance.conftest import NewField
from tests.conformance.lists import where
from tests.conformance.wire import FIELD_ENDPOINTS, GROUP_ENDPOINTS, Account, Object, has_shape, utc

states = statements_of("Everywhere")
states_fields, states_groups = statements_of("Workspace fields"), statements_of("Customer groups")

FORMATS = {"Date": "yyyy-MM-dd", "currency": "EUR"}
MORE_THAN_A_PAGE = 120


@states_fields("an unknown workspace: 401 `Invalid Workspace`", DOC)
@states_groups("an unknown workspace: 401 `Invalid Workspace`, of groups as of fields", DOC)
def test_unknown_workspace_is_refused(account: Account) -> None:
    for one in (*FIELD_ENDPOINTS[:2], *GROUP_ENDPOINTS[:2]):
        assert account.refused(one.path, one.body, verb=one.verb) == (401, "Invalid Workspace")


# ---- fields -----------------------------------------------------------------------------------


def refused_field(account: Account, **values: object) -> int:
    """Create a field that must be refused; return the status."""
    name = lists.unique_name()
    body = {"workspace_id": account.access.workspace_id, "field_name": name, **values}
    status = account.refused("/v1/cpf", {"field_type": "string", **body}, verb="PUT")[0]
    assert name not in names(account)
    return status


def names(account: Account) -> list[str]:
    return [field["field_name"] for field in account.fields()]


def accepted(account: Account, group: Object, field: Object, values: list[str]) -> int:
    """Return how many of the values are accepted; nothing is written."""
    ids = [f"{number}" for number in range(len(values))]
    rows = lists.customers(account, ids)
    for row, value in zip(rows, values, strict=True):
        row[field["field_name"]] = value
    return lists.upload(account, group, rows, validate_only="true")["accepted"]


def value_of(account: Account, group: Object, name: str) -> object:
    return lists.profiles(account, group)["1"].get(name)


@states_fields(
    "Field object: `{field_id, workspace_id, field_name, display_name, field_type, field_format, "
    "required, unique}`",
    OURS,
)
@states_fields("Field object: `field_type` and `field_format`", DOC)
@states_fields("`/v1/cpf` PUT create", DOC)
def test_create_field_adds_it(account: Account, new_field: NewField) -> None:
    field = new_field(display_name="Signed", field_type="Date", field_format="dd.MM.yyyy")
    assert has_shape(field, field_id=str, workspace_id=str, field_name=str, display_name=str)
    assert has_shape(field, field_type=str, field_format=str, required=bool, unique=bool)
    assert field["workspace_id"] == account.access.workspace_id
    assert (field["display_name"], field["required"], field["unique"]) == ("Signed", False, False)
    assert (field["field_type"], field["field_format"]) == ("Date", "dd.MM.yyyy")
    assert field in account.fields()


@states_fields("`/v1/cpf` POST list: `{workspace_id}` -> `{fields: [...]}`", OURS)
@states_fields("Exactly one field of a workspace is `unique: true`", OURS)
@states_fields("the customer identifier, `customer_id` by default", OURS)
def test_list_fields_is_of_the_workspace(account: Account) -> None:
    for field in account.fields():
        assert field["workspace_id"] == account.access.workspace_id
        assert has_shape(field, field_id=str, field_name=str, field_format=str | None)
    unique = [field["field_name"] for field in account.fields() if field["unique"]]
    assert unique == ["customer_id"]


@states_fields("`/v1/cpf` PATCH update", DOC)
@states_fields("Update keeps customer data", DOC)
def test_update_field_changes_it_and_keeps_customer_data(
    account: Account, group: Object, field: Object
) -> None:
    name = field["field_name"]
    lists.upload(account, group, lists.customers(account, ["1"], **{name: "kept"}))
    body = {"field_id": field["field_id"], "display_name": "Another name"}
    updated = account.ask("/v1/cpf", body, verb="PATCH")
    assert updated == {**field, "display_name": "Another name"}
    assert updated in account.fields()
    assert value_of(account, group, name) == "kept"


@states_fields("`/v1/cpf` DELETE", DOC)
@states_fields("delete also deletes the values stored under the field", DOC)
def test_delete_field_removes_it_and_its_values(
    account: Account, group: Object, field: Object, new_field: NewField
) -> None:
    name = field["field_name"]
    lists.upload(account, group, lists.customers(account, ["1"], **{name: "gone"}))
    assert value_of(account, group, name) == "gone"
    account.ask("/v1/cpf", {"field_id": field["field_id"]}, verb="DELETE")
    assert name not in names(account)
    new_field(field_name=name)
    assert value_of(account, group, name) is None


@states_fields("`field_type`: `string`, `number`, `char`, `Date` (capital D), `currency`", DOC)
@states_fields("`field_type`: no other; `Date` has a capital D", DOC)
def test_field_type_is_one_of_five(account: Account, new_field: NewField) -> None:
    for field_type in ("string", "number", "char", "Date", "currency"):
        field = new_field(field_type=field_type, field_format=FORMATS.get(field_type))
        assert field["field_type"] == field_type
    for other in ("date", "String", "text", "integer", ""):
        assert refused_field(account, field_type=other, field_format=FORMATS["Date"]) == 400, other


@states_fields("the last two need `field_format`", DOC)
@pytest.mark.parametrize("field_type", ["Date", "currency"])
def test_date_or_currency_without_format_is_refused(account: Account, field_type: str) -> None:
    # The contract gives no status of its own: a missing field is a 401, a wrong one a 400.
    assert refused_field(account, field_type=field_type) in (400, 401)


@states_fields("Date formats, all 14: a field has it, and a date in it is accepted", DOC)
@states_fields(
    "Date formats, all 14: an impossible date, or one in another format, is refused", DOC
)
@pytest.mark.parametrize("date_format", lists.DATES)
def test_date_is_accepted_in_its_format_alone(
    account: Account, group: Object, new_field: NewField, date_format: str
) -> None:
    field = new_field(field_type="Date", field_format=date_format)
    assert field["field_format"] == date_format
    date = lists.DATES[date_format]
    # 24/02/29 is a date in several of the formats with two digits for the year.
    others = [other for other in lists.DATES.values() if other != date and len(other) > 8]
    assert accepted(account, group, field, [date]) == 1
    # A field that is not required may be empty.
    assert accepted(account, group, field, [date.replace("29", "30"), "", *others, "x"]) == 1


@states_fields("Date formats: these 14 and no other", DOC)
@states_fields("Currency format: an ISO 4217 code", DOC)
def test_format_is_a_known_one(account: Account, new_field: NewField) -> None:
    for unknown in ("yyyy.MM.dd", "YYYY-MM-DD", "dd MMM yy", "EUR", ""):
        assert refused_field(account, field_type="Date", field_format=unknown) == 400, unknown
    for code in ("EUR", "USD", "JPY", "KWD"):
        assert new_field(field_type="currency", field_format=code)["field_format"] == code
    for unknown in ("ZZZ", "Euro", "€", "eur", "yyyy-MM-dd"):
        assert refused_field(account, field_type="currency", field_format=unknown) == 400, unknown


@states_fields(
    "Exactly one field of a workspace is `unique: true`: no second one, and never none", OURS
)
def test_second_unique_field_and_none_are_refused(fresh: Account) -> None:
    assert refused_field(fresh, unique=True) == 400
    (unique,) = [field for field in fresh.fields() if field["unique"]]
    body = {"field_id": unique["field_id"]}
    assert fresh.refused("/v1/cpf", body, verb="DELETE")[0] == 400
    assert unique in fresh.fields()


# ---- groups -----------------------------------------------------------------------------------


def seen(account: Account, group: Object) -> Object:
    """Return the group as the list has it."""
    which = group["customer_group_id"]
    (found,) = [one for one in account.groups() if one["customer_group_id"] == which]
    return found


def create(account: Account, name: str, **more: str) -> Object:
    body = {"workspace_id": account.access.workspace_id, "name": name, **more}
    return account.ask("/v1/cg", body, verb="PUT")


@states_groups(
    "Group object `{customer_group_id, workspace_id, name, description, customer_count, "
    "created_at, updated_at}`",
    OURS,
)
@states_groups("`/v1/cg` PUT create", DOC)
@states_groups("create `{workspace_id, name, description?}`", OURS)
def test_create_group_adds_it(account: Account, group: Object) -> None:
    assert has_shape(group, customer_group_id=str, workspace_id=str, name=str, customer_count=int)
    assert has_shape(group, description=str | None, created_at=str, updated_at=str)
    assert utc(group["created_at"]) <= utc(group["updated_at"])
    assert (group["workspace_id"], group["customer_count"]) == (account.access.workspace_id, 0)
    assert seen(account, group) == group
    assert group["description"] is None
    described = create(account, lists.unique_name(), description="For one test")
    assert described["description"] == "For one test"


@states_groups("`/v1/cg` POST list all: `{workspace_id}` -> `{groups: [...]}`", OURS)
def test_list_groups_is_of_the_workspace(account: Account, group: Object) -> None:
    groups = account.groups()
    assert {one["workspace_id"] for one in groups} == {account.access.workspace_id}
    assert {group["customer_group_id"], account.access.customer_group_id} <= {
        one["customer_group_id"] for one in groups
    }


@states_groups("list: not paged", DOC)
def test_list_groups_is_not_paged(fresh: Account) -> None:
    made = [create(fresh, f"group {number}")["name"] for number in range(MORE_THAN_A_PAGE)]
    assert {*made} <= {one["name"] for one in fresh.groups()}


@states_groups("Name unique within a workspace, else 400 `Customer group already exists.`", OURS)
@states_groups("Name unique within a workspace, also when a group is renamed", OURS)
def test_used_name_of_a_group_is_refused(account: Account, group: Object) -> None:
    other = create(account, lists.unique_name())
    for verb, which in (
        ("PUT", {"workspace_id": account.access.workspace_id}),
        ("PATCH", {"customer_group_id": other["customer_group_id"]}),
    ):
        answer = account.refused("/v1/cg", {**which, "name": group["name"]}, verb=verb)
        assert answer == (400, "Customer group already exists.")
    assert seen(account, other) == other


@states_groups("Name unique *within a workspace*: another may have the same", OURS)
def test_group_name_may_repeat_in_another_workspace(stranger: Account, group: Object) -> None:
    assert create(stranger, group["name"])["name"] == group["name"]


@states_groups("`/v1/cg` PATCH update", DOC)
@states_groups("Update keeps customer assignments", DOC)
@states_groups("Group object: `customer_count`", OURS)
def test_update_group_changes_it_and_keeps_its_customers(account: Account, group: Object) -> None:
    lists.upload(account, group, lists.customers(account, ["1", "2", "3"]))
    before, customers = seen(account, group), lists.profiles(account, group)
    assert before["customer_count"] == 3
    changes = {"name": lists.unique_name(), "description": "Another"}
    body = {"customer_group_id": group["customer_group_id"], **changes}
    updated = account.ask("/v1/cg", body, verb="PATCH")
    assert utc(updated["updated_at"]) > utc(group["updated_at"])
    assert updated == {**before, **changes, "updated_at": updated["updated_at"]}
    assert seen(account, group) == updated
    assert lists.profiles(account, group) == customers


@states("content: PUT creates, POST reads, PATCH updates, DELETE deletes, with a JSON body", DOC)
@states_groups("`/v1/cg` DELETE: delete is permanent", DOC)
def test_group_is_created_read_updated_and_deleted_for_good(
    account: Account, group: Object
) -> None:
    renamed = lists.unique_name()
    which = {"customer_group_id": group["customer_group_id"]}
    assert seen(account, group)["name"] == group["name"]
    account.ask("/v1/cg", {**which, "name": renamed}, verb="PATCH")
    assert seen(account, group)["name"] == renamed
    lists.upload(account, group, lists.customers(account, ["1"]))
    account.ask("/v1/cg", which, verb="DELETE")
    assert group["customer_group_id"] not in {one["customer_group_id"] for one in account.groups()}
    assert account.refused("/v1/customer/pages", where(account, group))[0] == 404
    assert account.refused("/v1/cg", which, verb="DELETE")[0] == 404
    again = create(account, renamed)
    assert (lists.count(account, again), again["customer_count"]) == (0, 0)
