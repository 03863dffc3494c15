"""Customers of a group: checked, uploaded, read page by page, and deleted."""

import json
from math import ceil

import pytest
from cryptography.fernet import Fernet, InvalidToken

from tests.conformance import DOC, OURS, lists, statements_of
from tests.conformance.conftest import NewField
from tests.conformance.lists import where
from tests.conformance.wire import Account, Object, has_shape, refusal, until

states = statements_of("Customers")

HOSTILE = 'O\'Hara, "Bob"\r\nsays:\n李 🙂 نعم, =SUM(A1)'
LARGE = 2000
"""Rows of a file that the sandbox of these tests does not work at once."""
GOOD_AND_BAD = {
    "string": ("", HOSTILE, None),
    "number": ("", "-12.5", "twelve"),
    "char": ("", "É", "AB"),
    "Date": ("yyyy-MM-dd", "2024-02-29", "2023-02-29"),
    "currency": ("EUR", "12.50", "twelve"),
}


def check_one(account: Account, group: Object, row: Object, **more: object) -> Object:
    body = {**where(account, group), "customer": row, **more}
    return account.ask("/v1/customer/check", body)


def mixed(account: Account, good: int, bad: int = 0) -> list[lists.Customer]:
    """Return a list with bad rows, without an identifier, between the good ones."""
    rows = lists.customers(account, [f"{number:05d}" for number in range(good)])
    (without,) = lists.customers(account, [""])
    half = good // 2
    return [*rows[:half], *[without] * bad, *rows[half:]]


# ---- check and upload -------------------------------------------------------------------------


@states("Either a data file or JSON", DOC)
def test_check_without_file_or_customer_is_refused(account: Account, group: Object) -> None:
    path, which = "/v1/customer/check", where(account, group)
    assert account.refused(path, which) == (401, "Missing required fields.")
    bearer = {"authorization": account.headers["authorization"]}
    form = {name: (None, value) for name, value in which.items()}
    form["file"] = ("customers.csv", lists.as_csv(lists.customers(account, ["1"])))
    for missing in form:
        parts = {name: part for name, part in form.items() if name != missing}
        response = account.http.post(path, files=parts, headers=bearer)
        assert refusal(response) == (401, "Missing required fields."), missing
    assert lists.count(account, group) == 0


@states("`file` = UTF-8 CSV with a header row, RFC 4180", OURS)
def test_file_is_read_as_rfc_4180(account: Account, group: Object, field: Object) -> None:
    name = field["field_name"]
    rows = lists.customers(account, ["000123", "1e5", 'a "b", c'], **{name: HOSTILE})
    assert lists.upload(account, group, rows)["accepted"] == 3
    found = lists.profiles(account, group)
    assert {one: profile[name] for one, profile in found.items()} == {
        "000123": HOSTILE,
        "1e5": HOSTILE,
        'a "b", c': HOSTILE,
    }


@states("validates headers and rows against the workspace's fields", DOC)
@pytest.mark.parametrize("field_type", GOOD_AND_BAD)
def test_row_is_validated_by_its_fields(
    account: Account, group: Object, new_field: NewField, field_type: str
) -> None:
    field_format, good, bad = GOOD_AND_BAD[field_type]
    name = new_field(field_type=field_type, field_format=field_format or None)["field_name"]
    rows = lists.customers(account, ["good"], **{name: good})
    if bad:
        rows += lists.customers(account, ["bad"], **{name: bad})
    answer = lists.upload(account, group, rows)
    assert [error["field"] for error in answer["errors"]] == [name] * bool(bad)
    assert {*lists.profiles(account, group)} == {"good"}


@states("upserts by the unique identifier into the group", DOC)
def test_upsert_replaces_by_identifier(account: Account, group: Object, field: Object) -> None:
    name = field["field_name"]
    lists.upload(account, group, lists.customers(account, ["1", "2"], **{name: "old"}))
    lists.upload(account, group, lists.customers(account, ["2", "3"], **{name: "new"}))
    (row,) = lists.customers(account, ["1"], **{name: "newest"})
    check_one(account, group, row)
    found = {one: profile[name] for one, profile in lists.profiles(account, group).items()}
    assert found == {"1": "newest", "2": "new", "3": "new"}
    assert lists.count(account, group) == 3


@states(
    "`POST /v1/customer/check`, a data file: multipart/form-data `file`, `workspace_id`, "
    "`customer_group_id`",
    OURS,
)
@states(
    "Answer `{job_uid, status, total, accepted, rejected, errors: [{row, field, code, message}]}`",
    OURS,
)
@states('small files answer `status: "completed"` at once', OURS)
@states("A rejected row never blocks an accepted one", OURS)
@states("Errors name at most 100 rows; `rejected` counts all", OURS)
@pytest.mark.parametrize("bad", [0, 1, 150])
def test_file_is_upserted_without_its_rejected_rows(
    account: Account, group: Object, bad: int
) -> None:
    answer = lists.upload(account, group, mixed(account, 10, bad))
    assert has_shape(answer, job_uid=str, status=str, errors=list)
    assert has_shape(answer, total=int, accepted=int, rejected=int)
    assert answer["status"] == "completed"
    assert (answer["total"], answer["accepted"], answer["rejected"]) == (10 + bad, 10, bad)
    assert len({error["row"] for error in answer["errors"]}) == min(bad, 100)
    for error in answer["errors"]:
        assert has_shape(error, row=int, field=str, code=str, message=str)
        assert error["field"] == lists.key_of(account)
    assert {*lists.profiles(account, group)} == {f"{number:05d}" for number in range(10)}


@states("`validate_only: true` checks without writing: a data file", OURS)
@states("`validate_only: true` checks without writing: JSON", OURS)
def test_validate_only_writes_nothing(account: Account, group: Object) -> None:
    answer = lists.upload(account, group, mixed(account, 3, 2), validate_only="true")
    assert (answer["accepted"], answer["rejected"]) == (3, 2)
    for identifier, accepted in (("1", 1), ("", 0)):
        (row,) = lists.customers(account, [identifier])
        answer = check_one(account, group, row, validate_only=True)
        assert (answer["accepted"], answer["rejected"]) == (accepted, 1 - accepted)
    assert lists.count(account, group) == 0


@pytest.mark.usefixtures("controls")
@states("`validate_only: true` checks without writing: a large file", OURS)
@states('files above a size limit answer `status: "queued"`', OURS)
@states("files above a size limit are worked in the background", DOC)
def test_large_file_is_queued_and_worked_unless_it_is_only_validated(
    account: Account, group: Object
) -> None:
    lists.upload(account, group, mixed(account, LARGE), validate_only="true")
    # What is worked in the background is worked in order: this file comes second.
    rows = mixed(account, LARGE, 150)[1:]
    answer = lists.upload(account, group, rows)
    assert answer["status"] == "queued"
    assert answer["job_uid"]
    until(lambda: lists.count(account, group), lambda total: total >= LARGE - 1)
    key = lists.key_of(account)
    assert {*lists.profiles(account, group)} == {row[key] for row in rows} - {""}


@states("Bad headers: 400 naming them, nothing written", OURS)
@pytest.mark.parametrize("case", ["unknown", "missing", "repeated"])
def test_bad_header_is_refused(account: Account, group: Object, field: Object, case: str) -> None:
    key, own = lists.key_of(account), field["field_name"]
    whole = lists.as_csv(lists.customers(account, ["1"], **{own: "x"}))
    content, named = {
        "unknown": (whole.replace(own.encode(), b"no_such_field"), "no_such_field"),
        "missing": (f"{own}\r\nx\r\n".encode(), key),
        "repeated": (whole.replace(own.encode(), key.encode()), key),
    }[case]
    status, text = refusal(lists.send_file(account, group, content))
    assert status == 400
    assert named in text
    assert lists.count(account, group) == 0


@states("Bad headers: also of one customer as JSON", OURS)
def test_bad_name_in_json_is_refused(account: Account, group: Object) -> None:
    (row,) = lists.customers(account, ["1"], no_such_field="x")
    body = {**where(account, group), "customer": row}
    status, text = account.refused("/v1/customer/check", body)
    assert status == 400
    assert "no_such_field" in text
    assert lists.count(account, group) == 0


@pytest.mark.usefixtures("controls")
@states("Bad headers: also of a large file, at once", OURS)
def test_bad_header_of_a_large_file_is_refused(account: Account, group: Object) -> None:
    rows = lists.customers(account, map(str, range(LARGE)), no_such_field="x")
    status, text = refusal(lists.send_file(account, group, lists.as_csv(rows)))
    assert status == 400
    assert "no_such_field" in text
    assert lists.count(account, group) == 0


# ---- read and delete --------------------------------------------------------------------------


@pytest.fixture
def members(account: Account) -> Object:
    """The campaign's group, which has customers."""
    return {"customer_group_id": account.access.customer_group_id}


@states("`POST /v1/customer/pages` -> `{num_pages, page_size, total}`", DOC)
@states("`POST /v1/customer` `{..., page}` -> `{customers: [...], page, num_pages}`, 0-based", OURS)
def test_customer_pages_are_counted_from_0(account: Account, members: Object) -> None:
    counted = account.ask("/v1/customer/pages", where(account, members))
    assert has_shape(counted, num_pages=int, page_size=int, total=int)
    assert counted["total"] > 0
    assert counted["num_pages"] == ceil(counted["total"] / counted["page_size"])
    last = counted["num_pages"] - 1
    first_page, last_page = (lists.page(account, members, number) for number in (0, last))
    assert has_shape(last_page, customers=list, page=int, num_pages=int)
    assert (last_page["page"], last_page["num_pages"]) == (last, counted["num_pages"])
    assert len(first_page["customers"]) == min(counted["page_size"], counted["total"])
    assert len(last_page["customers"]) == counted["total"] - last * counted["page_size"]
    assert not lists.page(account, members, last + 1)["customers"]


@pytest.mark.usefixtures("controls")
@states("the pages together hold each customer once", OURS)
def test_customer_pages_have_each_customer_once(account: Account, members: Object) -> None:
    counted = account.ask("/v1/customer/pages", where(account, members))
    pages = [lists.page(account, members, number) for number in range(counted["num_pages"])]
    ids = [one["customer_id"] for page in pages for one in page["customers"]]
    assert len(pages) > 2
    assert len({*ids}) == len(ids) == counted["total"]


@states("or JSON `{workspace_id, customer_group_id, customer: {...}}`", OURS)
@states("`profile` comes encrypted with the account's key", DOC)
@states("a Fernet token of the JSON object; the key is issued with the credentials", OURS)
def test_json_customer_is_upserted_and_its_profile_a_fernet_token(
    account: Account, group: Object
) -> None:
    (row,) = lists.customers(account, ["a telling identifier"])
    answer = check_one(account, group, row)
    assert (answer["total"], answer["accepted"]) == (1, 1)
    (one,) = lists.page(account, group, 0)["customers"]
    assert has_shape(one, customer_id=str, profile=str)
    assert one["customer_id"] == "a telling identifier"
    assert "telling" not in one["profile"]
    profile = json.loads(Fernet(account.access.profile_key).decrypt(one["profile"]))
    assert row.items() <= profile.items()


@states("encrypted with *the account's* key", DOC)
def test_profile_is_not_decrypted_by_another_accounts_key(
    account: Account, stranger: Account, members: Object
) -> None:
    one = lists.page(account, members, 0)["customers"][0]
    with pytest.raises(InvalidToken):
        Fernet(stranger.access.profile_key).decrypt(one["profile"])


@states(
    "`DELETE /v1/customer` `{workspace_id, customer_group_id, customer_ids: [...]}` -> `{deleted}`",
    OURS,
)
def test_delete_customers_removes_them(account: Account, group: Object) -> None:
    def delete(*ids: str) -> int:
        body = {**where(account, group), "customer_ids": ids}
        return account.ask("/v1/customer", body, verb="DELETE")["deleted"]

    lists.upload(account, group, lists.customers(account, ["1", "2", "3"]))
    assert delete("1", "3", "nobody") == 2
    assert {*lists.profiles(account, group)} == {"2"}
    assert delete("1") == 0
