import pytest

from tests.conformance import lists
from tests.conformance.conftest import NewField
from tests.conformance.statements import DOC, OURS, statements_of
from tests.conformance.wire import UNKNOWN, Account, Object, has_shape

states = statements_of("Workspace fields")

FORMATS = {"Date": "yyyy-MM-dd", "currency": "EUR"}
over_dates = pytest.mark.parametrize("date_format", lists.DATES)


def refused_field(account: Account, **values: object) -> int:
    """Create a field that must be refused; return the status."""
    body = {
        "workspace_id": account.access.workspace_id,
        "field_name": lists.unique_name(),
        **values,
    }
    status = account.refused("/v1/cpf", {"field_type": "string", **body}, verb="PUT")[0]
    assert body["field_name"] not in names(account)
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


@states(
    "Field object: `{field_id, workspace_id, field_name, display_name, field_type, field_format, "
    "required, unique}`",
    OURS,
)
def test_field_object_has_its_names_and_types(account: Account, new_field: NewField) -> None:
    field = new_field(display_name="Signed", field_type="Date", field_format="dd.MM.yyyy")
    assert has_shape(
        field,
        field_id=str,
        workspace_id=str,
        field_name=str,
        display_name=str,
        field_type=str,
        field_format=str,
        required=bool,
        unique=bool,
    )
    assert field["workspace_id"] == account.access.workspace_id
    assert (field["display_name"], field["required"], field["unique"]) == ("Signed", False, False)


@states("Field object: `field_type` and `field_format`", DOC)
def test_field_keeps_type_and_format(account: Account, new_field: NewField) -> None:
    made = new_field(field_type="currency", field_format="JPY")
    (field,) = [each for each in account.fields() if each["field_id"] == made["field_id"]]
    assert (field["field_type"], field["field_format"]) == ("currency", "JPY")


@states("`/v1/cpf` PUT create", DOC)
def test_create_field_adds_it(account: Account, field: Object) -> None:
    assert field in account.fields()


@states("`/v1/cpf` POST list: `{workspace_id}` -> `{fields: [...]}`", OURS)
def test_list_fields_is_of_the_workspace(account: Account) -> None:
    for field in account.fields():
        assert field["workspace_id"] == account.access.workspace_id
        assert has_shape(field, field_id=str, field_name=str, field_format=str | None)


@states("an unknown workspace: 401 `Invalid Workspace`", DOC)
def test_list_fields_of_an_unknown_workspace_is_refused(account: Account) -> None:
    answer = account.refused("/v1/cpf", {"workspace_id": UNKNOWN})
    assert answer == (401, "Invalid Workspace")


@states("`/v1/cpf` PATCH update", DOC)
def test_update_field_changes_it(account: Account, field: Object) -> None:
    body = {"field_id": field["field_id"], "display_name": "Another name"}
    updated = account.ask("/v1/cpf", body, verb="PATCH")
    assert updated == {**field, "display_name": "Another name"}
    assert updated in account.fields()


@states("`/v1/cpf` DELETE", DOC)
def test_delete_field_removes_it(account: Account, field: Object) -> None:
    account.ask("/v1/cpf", {"field_id": field["field_id"]}, verb="DELETE")
    assert field["field_name"] not in names(account)


@states("`field_type`: `string`, `number`, `char`, `Date` (capital D), `currency`", DOC)
@pytest.mark.parametrize("field_type", ["string", "number", "char", "Date", "currency"])
def test_field_type_is_accepted(new_field: NewField, field_type: str) -> None:
    field = new_field(field_type=field_type, field_format=FORMATS.get(field_type))
    assert field["field_type"] == field_type


@states("`field_type`: no other; `Date` has a capital D", DOC)
@pytest.mark.parametrize("field_type", ["date", "String", "text", "integer", ""])
def test_unknown_field_type_is_refused(account: Account, field_type: str) -> None:
    status = refused_field(account, field_type=field_type, field_format=FORMATS["Date"])
    assert status == 400


@states("the last two need `field_format`", DOC)
@pytest.mark.parametrize("field_type", ["Date", "currency"])
def test_date_or_currency_without_format_is_refused(account: Account, field_type: str) -> None:
    # The contract gives no status of its own: a missing field is a 401, a wrong one a 400.
    assert refused_field(account, field_type=field_type) in (400, 401)


@states("Date formats, all 14: a field has it, and a date in it is accepted", DOC)
@over_dates
def test_date_in_its_format_is_accepted(
    account: Account, group: Object, new_field: NewField, date_format: str
) -> None:
    field = new_field(field_type="Date", field_format=date_format)
    assert field["field_format"] == date_format
    assert accepted(account, group, field, [lists.DATES[date_format]]) == 1


@states("Date formats, all 14: an impossible date, or one in another format, is refused", DOC)
@over_dates
def test_impossible_date_is_rejected(
    account: Account, group: Object, new_field: NewField, date_format: str
) -> None:
    field = new_field(field_type="Date", field_format=date_format)
    date = lists.DATES[date_format]
    # 24/02/29 is a date in several of the formats with two digits for the year.
    others = [other for other in lists.DATES.values() if other != date and len(other) > 8]
    assert accepted(account, group, field, [date.replace("29", "30"), "", *others, "x"]) == 1


@states("Date formats: these 14 and no other", DOC)
@pytest.mark.parametrize("date_format", ["yyyy.MM.dd", "YYYY-MM-DD", "dd MMM yy", "EUR", ""])
def test_unknown_date_format_is_refused(account: Account, date_format: str) -> None:
    assert refused_field(account, field_type="Date", field_format=date_format) == 400


@states("Currency format: an ISO 4217 code", DOC)
def test_currency_format_is_an_iso_4217_code(account: Account, new_field: NewField) -> None:
    for code in ("EUR", "USD", "JPY", "KWD"):
        assert new_field(field_type="currency", field_format=code)["field_format"] == code
    for code in ("ZZZ", "Euro", "€", "eur", "yyyy-MM-dd"):
        assert refused_field(account, field_type="currency", field_format=code) == 400


@states("Update keeps customer data", DOC)
def test_update_field_keeps_customer_data(account: Account, group: Object, field: Object) -> None:
    name = field["field_name"]
    lists.upload(account, group, lists.customers(account, ["1"], **{name: "kept"}))
    body = {"field_id": field["field_id"], "display_name": "Another name"}
    account.ask("/v1/cpf", body, verb="PATCH")
    assert value_of(account, group, name) == "kept"


@states("delete also deletes the values stored under the field", DOC)
def test_delete_field_deletes_its_values(
    account: Account, group: Object, field: Object, new_field: NewField
) -> None:
    name = field["field_name"]
    lists.upload(account, group, lists.customers(account, ["1"], **{name: "gone"}))
    assert value_of(account, group, name) == "gone"
    account.ask("/v1/cpf", {"field_id": field["field_id"]}, verb="DELETE")
    new_field(field_name=name)
    assert value_of(account, group, name) is None


@states("Exactly one field of a workspace is `unique: true`", OURS)
def test_workspace_has_one_unique_field(account: Account) -> None:
    assert [field["unique"] for field in account.fields()].count(True) == 1


@states("the customer identifier, `customer_id` by default", OURS)
def test_unique_field_is_customer_id(account: Account) -> None:
    assert lists.key_of(account) == "customer_id"


@pytest.mark.sandbox
@states("Exactly one field of a workspace is `unique: true`: no second one, and never none", OURS)
def test_second_unique_field_and_none_are_refused(fresh: Account) -> None:
    assert refused_field(fresh, unique=True) == 400
    (unique,) = [field for field in fresh.fields() if field["unique"]]
    body = {"field_id": unique["field_id"]}
    assert fresh.refused("/v1/cpf", body, verb="DELETE")[0] == 400
    assert unique in fresh.fields()
