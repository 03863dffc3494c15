"""Hostile files and forms: each is refused, or its bad rows are rejected."""

import gzip
import io
import zipfile
from collections.abc import Callable

import pytest

from nudgescribe import rfc4180
from nudgescribe.errors import message_of
from sandbox.engine import uploads
from sandbox.settings import MIB
from tests.conformance.lists import send_file
from tests.sandbox.api.security.tenants import (
    BOUNDARY,
    CHECK,
    HEADER,
    LIST,
    Tenant,
    check_refused,
    ids_of,
    on_one_database,
    unharmed,
)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("customers.csv", HEADER * 1000)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(LIST),
    "zip": zipped,
    "UTF-16": lambda: LIST.decode().encode("utf-16"),
    "UTF-16 without BOM": lambda: LIST.decode().encode("utf-16-le"),
    "UTF-16, big endian": lambda: LIST.decode().encode("utf-16-be"),
    "UTF-32": lambda: LIST.decode().encode("utf-32"),
    "Latin-1": lambda: LIST + "2,Zoë,basic,North\n".encode("latin-1"),
    "surrogates": lambda: LIST + b"2,\xed\xa0\x80,basic,North\n",
    "two BOMs": lambda: b"\xef\xbb\xbf" * 2 + LIST,
    "nothing but a BOM": lambda: b"\xef\xbb\xbf",
    "nothing": lambda: b"",
    "NUL in the header": lambda: LIST.replace(b"first_name", b"first\0_name"),
    "NUL after a column's name": lambda: LIST.replace(b"plan", b"plan\0"),
    "nothing but NULs": lambda: b"\0" * 1_000_000,
    "a header of nothing": lambda: b",,,\n1,2,3,4\n",
    "a column without a name": lambda: LIST.replace(b"region", b"region,"),
    "100,000 columns": lambda: b",".join(b"c%d" % number for number in range(100_000)) + b"\n",
    "100,000 equal columns": lambda: b",".join([b"plan"] * 100_000) + b"\n",
    "100,000 columns without a name": lambda: b"," * 100_000 + b"\n",
    "100,000 values in a row": lambda: LIST + b"," * 100_000 + b"\n",
    "a column's name of a megabyte": lambda: HEADER[:-1] + b"," + b"x" * MIB + b"\n",
    "1,000,000 empty lines": lambda: b"\n" * 1_000_000,
    "1,000,000 empty lines, CR LF": lambda: b"\r\n" * 1_000_000,
    "1,000,000 empty lines, CR": lambda: b"\r" * 1_000_000,
    "a quote that stays open": lambda: LIST + b'2,"' + b"x" * MIB,
    "a quote that stays open over 12,000,000 lines": lambda: LIST + b'2,"' + b"\n" * 12_000_000,
    "4,000,000 quotes": lambda: LIST + b'2,"' + b'""' * 2_000_000,
    "a quoted header of 12,000,000 lines": lambda: b'"' + b"\n" * 12_000_000 + b'"\n',
    "rows of another length": lambda: LIST + b"2,Anna\n",
    "HTML": lambda: b"<!doctype html>\n<title>Not a list</title>\n",
}


@on_one_database
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_hostile_file_is_refused(ours: Tenant, content: Callable[[], bytes]) -> None:
    file = content()
    with unharmed(ours):
        check_refused(send_file(ours, ours.ids, file))


@on_one_database
@pytest.mark.parametrize("line", [b"\n", b"\r\n", b",,,\n"])
def test_million_empty_rows_are_rejected_rows(ours: Tenant, line: bytes) -> None:
    with unharmed(ours):
        answer = send_file(ours, ours.ids, HEADER + line * 1_000_000)
        assert answer.status_code == 200
        result = answer.json()
        assert (result["accepted"], result["rejected"]) == (0, 1_000_000)
        assert {error["row"] for error in result["errors"]} == {*range(1, 101)}


def test_row_longer_than_the_limit_is_refused(
    ours: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfc4180, "LONGEST_ROW", 1000)
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 500)
    with unharmed(ours):
        answer = send_file(ours, ours.ids, LIST + b'2,"' + b"x" * 2000 + b'",basic,North\n')
        check_refused(answer)
        assert message_of(answer) == "The CSV holds a row of more than 1,000 bytes."


def test_nul_rejects_its_row_alone(ours: Tenant) -> None:
    rows = b"1,a\0b,basic,North\n2,Anna,basic,North\n\0,Anna,basic,North\n"
    with unharmed(ours):
        result = send_file(ours, ours.ids, HEADER + rows, validate_only="true").json()
    assert (result["accepted"], result["rejected"]) == (1, 2)
    errors = [(each["row"], each["field"], each["code"]) for each in result["errors"]]
    assert errors == [(1, "first_name", "nul"), (3, "customer_id", "nul")]


def test_bom_is_no_part_of_a_list(ours: Tenant) -> None:
    with unharmed(ours):
        result = send_file(ours, ours.ids, b"\xef\xbb\xbf" + LIST, validate_only="true").json()
    assert (result["accepted"], result["rejected"]) == (1, 0)


def field(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    head = b'--x\r\ncontent-disposition: form-data; name="%s"%s' % (name, more)
    return head + b"\r\n\r\n" + value + b"\r\n"


IDS = b"<the tenant's ids>"
FILE = field(b"file", LIST, b'; filename="customers.csv"')
END = b"--x--\r\n"
FORMS = {
    "5,000 fields": IDS + FILE + field(b"x", b"") * 5000 + END,
    "900 unknown fields": IDS + FILE + b"".join(field(b"f%d" % n, b"") for n in range(900)) + END,
    "5,000 files": IDS + FILE * 5000 + END,
    "a long field": IDS + FILE + field(b"x", b"y" * 2 * MIB) + END,
    "a long name": IDS + FILE + field(b"x" * MIB, b"") + END,
    "an unknown field": IDS + FILE + field(b"x", b"") + END,
    "10,000 headers": b"--x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n" + END,
    "no file": IDS + END,
    "no ids": FILE + END,
    "ids as files": FILE.replace(b"file", b"workspace_id", 1)
    + FILE.replace(b"file", b"customer_group_id", 1)
    + FILE
    + END,
    "a file as text": IDS + field(b"file", LIST) + END,
    "a NUL": IDS + field(b"workspace_id", b"\0") + FILE + END,
    "a field without a name": b"--x\r\n\r\n\r\n" + END,
    "cut off": IDS + b"--x\r\nconte",
    "garbage": b"\x82" * 1000,
    "empty": b"",
}
WHOLE = IDS + FILE + END
CONTENT_TYPES = {
    "multipart/form-data": WHOLE,
    "multipart/form-data; boundary=y": WHOLE,
    "multipart/mixed; boundary=x": WHOLE,
    "application/x-www-form-urlencoded": b"workspace_id=x",
    "text/plain": b"{}",
    "": b"{}",
    f"{BOUNDARY}; charset=undefined": WHOLE,
    f"{BOUNDARY}; charset=punycode": WHOLE,
    f"{BOUNDARY}; charset=unicode_escape": IDS + field(b"workspace_id", b"\\ud800") + FILE + END,
    f"{BOUNDARY}; charset=utf-7": IDS + field(b"+2AA-", b"") + FILE + END,
}


def with_ids(form: bytes, tenant: Tenant) -> bytes:
    fields = [field(name.encode(), tenant.own[name].encode()) for name in ids_of(CHECK)]
    return form.replace(IDS, b"".join(fields))


@on_one_database
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_hostile_form_is_refused(ours: Tenant, form: bytes) -> None:
    with unharmed(ours):
        answer = ours.send(CHECK, with_ids(form, ours), content_type=BOUNDARY)
        check_refused(answer, 400, 401)


@on_one_database
@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_form_of_a_hostile_content_type_is_refused(ours: Tenant, content_type: str) -> None:
    form = with_ids(CONTENT_TYPES[content_type], ours)
    with unharmed(ours):
        check_refused(ours.send(CHECK, form, content_type=content_type), 400, 401)


def test_content_type_of_a_form_may_be_in_capitals(ours: Tenant) -> None:
    form = with_ids(IDS + field(b"validate_only", b"true") + FILE + END, ours)
    answer = ours.send(CHECK, form, content_type="Multipart/Form-Data; Boundary=x")
    assert answer.json()["accepted"] == 1
