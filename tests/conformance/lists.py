"""Groups and fields of the tests' own, and customer lists that keep a workspace's rules."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from uuid import uuid4

import httpx
from cryptography.fernet import Fernet

from tests.conformance.wire import Account, Object

Customer = dict[str, str]

OWN = f"conformance_{uuid4().hex[:8]}_"
"""How the names of all that these tests make in an account begin."""

DATES = {
    "yyyy-MM-dd": "2024-02-29",
    "dd/MM/yyyy": "29/02/2024",
    "MM/dd/yyyy": "02/29/2024",
    "dd-MM-yyyy": "29-02-2024",
    "MM-dd-yyyy": "02-29-2024",
    "dd.MM.yyyy": "29.02.2024",
    "yyyy/MM/dd": "2024/02/29",
    "dd MMM yyyy": "29 Feb 2024",
    "MMM dd, yyyy": "Feb 29, 2024",
    "MMMM dd, yyyy": "February 29, 2024",
    "dd MMMM yyyy": "29 February 2024",
    "yy/MM/dd": "24/02/29",
    "dd/MM/yy": "29/02/24",
    "MM/dd/yy": "02/29/24",
}
"""The 14 date formats, each with a date."""

VALUES = {"string": "text", "number": "7", "char": "x", "currency": "10"}


def key_of(account: Account) -> str:
    """Return the name of the workspace's customer identifier."""
    (key,) = [field["field_name"] for field in account.fields() if field["unique"]]
    return key


def customers(account: Account, identifiers: Iterable[str], **values: str) -> list[Customer]:
    """Return customers with a value in each required field, and the given values."""
    fields = account.fields()
    needed = {
        field["field_name"]: VALUES.get(field["field_type"]) or DATES[field["field_format"]]
        for field in fields
        if field["required"] or field["unique"]
    }
    (key,) = [field["field_name"] for field in fields if field["unique"]]
    return [{**needed, **values, key: one} for one in identifiers]


def as_csv(rows: Sequence[Customer]) -> bytes:
    """Return rows as UTF-8 CSV with a header row, RFC 4180."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parsed(text: str) -> list[Customer]:
    """Return a CSV's rows; fail where it breaks RFC 4180."""
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    return [dict(zip(header, row, strict=True)) for row in rows]


def where(account: Account, group: Object) -> Object:
    """Return the ids of the workspace and the group."""
    return {
        "workspace_id": account.access.workspace_id,
        "customer_group_id": group["customer_group_id"],
    }


def send_file(account: Account, group: Object, content: bytes, **form: str) -> httpx.Response:
    headers = {"authorization": account.headers["authorization"]}
    return account.http.post(
        "/v1/customer/check",
        data={**where(account, group), **form},
        files={"file": ("customers.csv", content, "text/csv")},
        headers=headers,
    )


def upload(account: Account, group: Object, rows: Sequence[Customer], **form: str) -> Object:
    """Upload a file that must be accepted; return the answer."""
    response = send_file(account, group, as_csv(rows), **form)
    assert response.status_code == 200, response.text
    return response.json()


def count(account: Account, group: Object) -> int:
    return account.ask("/v1/customer/pages", where(account, group))["total"]


def page(account: Account, group: Object, number: int) -> Object:
    return account.ask("/v1/customer", {**where(account, group), "page": number})


def profiles(account: Account, group: Object) -> dict[str, Object]:
    """Return all profiles of a group by identifier, decrypted."""
    cipher = Fernet(account.access.profile_key)
    pages = account.ask("/v1/customer/pages", where(account, group))["num_pages"]
    return {
        one["customer_id"]: json.loads(cipher.decrypt(one["profile"]))
        for number in range(pages)
        for one in page(account, group, number)["customers"]
    }


def unique_name() -> str:
    return f"{OWN}{uuid4().hex}"


def sweep(account: Account) -> None:
    """Deletes the groups and fields of these tests, with their customers and values."""
    for group in account.groups():
        if group["name"].startswith(OWN):
            if ids := list(profiles(account, group)):
                account.ask(
                    "/v1/customer", {**where(account, group), "customer_ids": ids}, verb="DELETE"
                )
            which = {"customer_group_id": group["customer_group_id"]}
            account.ask("/v1/cg", which, verb="DELETE")
    for field in account.fields():
        if field["field_name"].startswith(OWN):
            account.ask("/v1/cpf", {"field_id": field["field_id"]}, verb="DELETE")
