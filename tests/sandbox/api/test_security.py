"""What strangers and hostile inputs get from the service: a clear answer, and nothing else."""

import gzip
import http.client
import io
import json
import os
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, combinations, product, repeat
from pathlib import Path
from time import monotonic, time
from typing import Any
from uuid import uuid4

import httpx
import jwt
import polars as pl
import pytest
from sqlalchemy import select

from benchmarks.big_list import peak_mib
from deployments import local
from nudgescribe import contract, rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import CreateField, Status
from nudgescribe.errors import message_of
from sandbox import demo_customers, seed
from sandbox.api.security import password_fits
from sandbox.data.models import (
    Account,
    Block,
    Campaign,
    Field,
    Group,
    Job,
    Message,
    Run,
    User,
    Workspace,
)
from sandbox.engine import uploads
from sandbox.settings import MIB, Settings
from tests.conftest import Company, Sandbox, credentials_of, customers, serving
from tests.sandbox.engine import test_restart
from tests.support.databases import new_database

settings, seeded = test_restart.settings, test_restart.seeded

CUSTOMERS = 20
LONGEST_ANSWER = 5000
"""Bytes; an answer that refuses does not repeat what was sent."""
QUICK = 30.0
"""Seconds; what takes longer keeps the service from others."""
COLUMNS = b"customer_id,first_name,plan,region\n"


@dataclass(frozen=True)
class Operation:
    """One of the API's calls: `ids` are the names of what it is about, `rest` the other values."""

    method: str
    path: str
    ids: tuple[str, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.method, self.path, *map(str, self.rest.values())])[:60]

    def body(self, ids: Mapping[str, str]) -> dict[str, Any]:
        return {**{name: ids[name] for name in self.ids}, **self.rest}


WORKSPACE, GROUP = ("workspace_id",), ("customer_group_id",)
CUSTOMER = {"customer_id": "new", "first_name": "A", "plan": "p", "region": "r", "visits": 1}
CREATE_FIELD = Operation(
    "PUT", contract.FIELDS, WORKSPACE, {"field_name": "new", "field_type": "string"}
)
LIST_GROUPS = Operation("POST", contract.GROUPS, WORKSPACE)
CHECK = Operation("POST", contract.CUSTOMERS_CHECK, WORKSPACE + GROUP, {"customer": CUSTOMER})
OPERATIONS = [
    CREATE_FIELD,
    Operation("POST", contract.FIELDS, WORKSPACE),
    Operation("PATCH", contract.FIELDS, ("field_id",), {"display_name": "changed"}),
    Operation("DELETE", contract.FIELDS, ("field_id",)),
    Operation("PUT", contract.GROUPS, WORKSPACE, {"name": "New", "description": "d"}),
    LIST_GROUPS,
    Operation("PATCH", contract.GROUPS, GROUP, {"name": "Changed"}),
    Operation("DELETE", contract.GROUPS, GROUP),
    CHECK,
    Operation("POST", contract.CUSTOMERS_PAGES, WORKSPACE + GROUP),
    Operation("POST", contract.CUSTOMERS, WORKSPACE + GROUP, {"page": 0}),
    Operation("DELETE", contract.CUSTOMERS, WORKSPACE + GROUP, {"customer_ids": ["000001"]}),
    Operation("POST", contract.PUBLISH, ("campaign_id",)),
    Operation("POST", contract.MESSAGES_PAGES, ("campaign_id",), {"run_number": 1}),
    *(
        Operation(
            "POST", contract.MESSAGES_FETCH, ("campaign_id",), {"file_num": 0, "export_type": kind}
        )
        for kind in ("utf8", "json", "url")
    ),
    Operation("POST", contract.RERUN_INITIATE, ("campaign_id", "new_customer_group_id")),
    Operation("POST", contract.RERUN_HISTORY, ("campaign_id",)),
    Operation("POST", contract.RERUN_MESSAGES, ("campaign_id",), {"run_number": 1}),
]
LIST_CAMPAIGNS = Operation("POST", contract.CAMPAIGNS)
SIGN_IN = Operation("POST", contract.AUTH, (), {"email": "a@b.c", "password": "x"})

on_one_database = pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
"""For what is refused before a database is asked."""

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


class Caller:
    """Raw calls of a company, with all headers in order."""

    def __init__(self, company: Company) -> None:
        self.company = company
        one = company.seeded
        self.http = httpx.Client(base_url=company.sandbox.url, timeout=60)
        self.tokens = self.http.post(
            contract.AUTH,
            json={"email": one.email, "password": one.password},
            headers={contract.API_KEY_HEADER: one.api_key},
        ).json()
        self.http.headers = {
            "authorization": f"Bearer {self.tokens['access_token']}",
            contract.AUTH_CONTEXT_HEADER: json.dumps(
                {"api_access": True, "api_code": one.api_code}
            ),
            contract.CLIENT_IP_HEADER: "192.0.2.1",
        }
        with company.client() as client:
            fields = {each.field_name: each for each in client.list_fields(one.workspace_id)}
            later = client.create_group(one.workspace_id, "Later").customer_group_id
            client.upload_customers(one.workspace_id, later, rfc4180.write(customers(CUSTOMERS)))
        self.ids = {
            "workspace_id": one.workspace_id,
            "customer_group_id": one.customer_group_id,
            "new_customer_group_id": later,
            "campaign_id": one.campaign_id,
            "field_id": fields["grade"].field_id,
        }

    def send(
        self, operation: Operation, body: object = None, **headers: str | bytes
    ) -> httpx.Response:
        """With the company's own ids, unless there is a body."""
        content = body
        if not isinstance(body, bytes):
            content = json.dumps(operation.body(self.ids) if body is None else body)
        return self.http.request(
            operation.method,
            operation.path,
            content=content,
            headers={"content-type": "application/json", **headers},
        )

    def upload(self, content: bytes, ids: Mapping[str, str] = {}, **form: str) -> httpx.Response:
        where = {name: {**self.ids, **ids}[name] for name in CHECK.ids}
        return self.http.post(
            contract.CUSTOMERS_CHECK, data={**where, **form}, files={"file": content}
        )


@pytest.fixture(scope="module")
def ours(sandbox: Sandbox) -> Iterator[Caller]:
    """A company that every call of this module leaves as it is."""
    with closing_caller(sandbox) as caller:
        yield caller


@pytest.fixture(scope="module")
def theirs(sandbox: Sandbox) -> Iterator[Caller]:
    """Another account."""
    with closing_caller(sandbox) as caller:
        yield caller


@contextmanager
def closing_caller(sandbox: Sandbox) -> Iterator[Caller]:
    caller = Caller(Company(sandbox, seed.seed(sandbox.context, CUSTOMERS)))
    with closing(caller.http):
        yield caller


def kept(company: Company) -> list[object]:
    """All that the service keeps for a company, row by row and page by page."""
    one, context = company.seeded, company.sandbox.context
    workspaces = select(Workspace.id).where(Workspace.account_id == one.account_id)
    groups = select(Group.id).where(Group.workspace_id.in_(workspaces))
    campaigns = select(Campaign.id).where(Campaign.workspace_id.in_(workspaces))
    queries = [
        select(Account.__table__).where(Account.id == one.account_id),
        select(User.__table__).where(User.account_id == one.account_id),
        select(Workspace.__table__).where(Workspace.account_id == one.account_id),
        select(Field.__table__).where(Field.workspace_id.in_(workspaces)),
        select(Group.__table__).where(Group.workspace_id.in_(workspaces)),
        select(Block.__table__).where(Block.group_id.in_(groups)),
        select(Campaign.__table__).where(Campaign.workspace_id.in_(workspaces)),
        select(Run.__table__).where(Run.campaign_id.in_(campaigns)),
        select(Message.__table__).where(Message.campaign_id.in_(campaigns)),
        select(Job.__table__).where(Job.subject.in_(groups) | Job.subject.in_(campaigns)),
    ]
    with context.store.read() as session:
        rows = [sorted(map(repr, session.execute(query))) for query in queries]
    pages = context.pages.names(one.campaign_id, 1)
    return [*rows, [context.pages.read(one.campaign_id, 1, name) for name in pages]]


@contextmanager
def unharmed(*callers: Caller) -> Iterator[None]:
    """Whatever happens within, it is quick, changes nothing, and leaves the service at work."""
    before, start = [kept(caller.company) for caller in callers], monotonic()
    yield
    assert monotonic() - start < QUICK
    assert [kept(caller.company) for caller in callers] == before
    for caller in callers:
        assert caller.send(LIST_GROUPS).status_code == 200


def check_refused(answer: httpx.Response, *statuses: int) -> None:
    """In the contract's form, in a few words."""
    assert answer.status_code in (statuses or (400,)), answer.text[:200]
    assert [*answer.json()] == ["message"]
    assert message_of(answer)
    assert len(answer.content) < LONGEST_ANSWER


# ---- passwords --------------------------------------------------------------------------------


def test_a_password_fits_at_the_cost_it_was_hashed_at() -> None:
    """Elsewhere a hash costs more than in the tests' own process."""
    code = "from sandbox.api.security import hash_password; print(hash_password('right'), end='')"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    hashed = done.stdout.decode()
    assert hashed.startswith(f"{2**14}:")
    assert password_fits("right", hashed)
    assert not password_fits("wrong", hashed)


# ---- tokens -----------------------------------------------------------------------------------

Claims = dict[str, Any]
Forge = Callable[[str, Claims, str], str]
"""A token from a genuine one, its claims, and the key that the service signs with."""


def encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def signed(key: str | None = None, algorithm: str = "HS256", **changes: object) -> Forge:
    """The same claims, changed; None takes one away."""

    def forge(token: str, claims: Claims, jwt_key: str) -> str:
        changed = {**claims, **changes}
        left = {name: value for name, value in changed.items() if value is not None}
        return jwt.encode(left, key or jwt_key, algorithm)

    return forge


def unsigned(token: str, claims: Claims, jwt_key: str) -> str:
    return jwt.encode(claims, "", "none")


def of_another_account(token: str, claims: Claims, jwt_key: str) -> str:
    head, _, signature = token.split(".")
    changed = json.dumps({**claims, "account_id": str(uuid4())})
    return f"{head}.{encoded(changed.encode())}.{signature}"


def with_header(header: bytes) -> Forge:
    def forge(token: str, claims: Claims, jwt_key: str) -> str:
        return f"{encoded(header)}.{token.partition('.')[2]}"

    return forge


TOKENS: dict[str, Forge] = {
    "expired": signed(exp=int(time()) - 1),
    "endless": signed(exp=None),
    "expires as text": signed(exp="never"),
    "not yet": signed(nbf=int(time()) + 3600),
    "without account": signed(account_id=None),
    "account is a number": signed(account_id=7),
    "without type": signed(type=None),
    "another key": signed("another key that is as long as a key must be: 32 bytes"),
    "HS512": signed(algorithm="HS512"),
    "HS384": signed(algorithm="HS384"),
    "unsigned": unsigned,
    "unsigned, with a signature": with_header(b'{"alg":"none","typ":"JWT"}'),
    "algorithm is a list": with_header(b'{"alg":["HS256"]}'),
    "another algorithm": with_header(b'{"alg":"RS256","typ":"JWT"}'),
    "header is no object": with_header(b"[]"),
    "header is no JSON": with_header(b"\xff{"),
    "header is deep": with_header(b"[" * 20_000),
    "another account": of_another_account,
    "signature cut": lambda token, claims, jwt_key: token[:-2],
    "no signature": lambda token, claims, jwt_key: token.rpartition(".")[0] + ".",
    "two parts": lambda token, claims, jwt_key: token.rpartition(".")[0],
    "twice": lambda token, claims, jwt_key: f"{token} {token}",
    "dots": lambda token, claims, jwt_key: "..",
}


def forged(caller: Caller, kind: str, forge: Forge) -> str:
    """A header with a token that is all but the caller's own."""
    key, token = caller.company.sandbox.settings.keys.jwt_key, caller.tokens[kind]
    return f"Bearer {forge(token, jwt.decode(token, key, ['HS256']), key)}"


def check_auth_error(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()) == (403, {"message": "auth error"})


@on_one_database
@pytest.mark.parametrize("forge", TOKENS.values(), ids=TOKENS)
def test_a_bad_token_is_good_for_nothing(ours: Caller, forge: Forge) -> None:
    access, refresh = (forged(ours, kind, forge) for kind in ("access_token", "refresh_token"))
    with unharmed(ours):
        for operation in [*OPERATIONS, LIST_CAMPAIGNS]:
            check_auth_error(ours.send(operation, authorization=access))
        check_auth_error(ours.http.get(contract.AUTH, headers={"authorization": refresh}))


def test_a_refresh_token_gives_no_access(ours: Caller) -> None:
    with unharmed(ours):
        for operation in [*OPERATIONS, LIST_CAMPAIGNS]:
            refresh = f"Bearer {ours.tokens['refresh_token']}"
            check_auth_error(ours.send(operation, authorization=refresh))


def test_an_access_token_renews_nothing(ours: Caller) -> None:
    check_auth_error(ours.http.get(contract.AUTH))


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic dTpw", "bearer", "Bearer \u00e9.\u00ff.x", "Token x"],
)
def test_a_header_that_is_no_bearer_token_is_good_for_nothing(ours: Caller, header: str) -> None:
    with unharmed(ours):
        check_auth_error(ours.send(LIST_CAMPAIGNS, authorization=header.encode("latin-1")))


def test_the_token_of_an_account_that_is_not_there_shows_nothing(ours: Caller) -> None:
    bearer = forged(ours, "access_token", signed(account_id=str(uuid4())))
    with unharmed(ours):
        assert ours.send(LIST_CAMPAIGNS, authorization=bearer).json() == {"workspaces": []}
        for operation in OPERATIONS:
            answer = ours.send(operation, authorization=bearer)
            unknown = ours.send(operation, operation.body(Unknown()), authorization=bearer)
            assert (answer.status_code, answer.content) == (unknown.status_code, unknown.content)
            check_refused(answer, 401, 404)


# ---- other accounts ---------------------------------------------------------------------------


class Unknown(dict[str, str]):
    """An id of nothing for every name."""

    def __missing__(self, name: str) -> str:
        return str(uuid4())


def some_of(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every choice of at least one name."""
    return chain.from_iterable(combinations(names, size + 1) for size in range(len(names)))


@every_operation
def test_another_accounts_ids_answer_as_unknown_ones(
    ours: Caller, theirs: Caller, operation: Operation
) -> None:
    with unharmed(ours, theirs):
        for names in some_of(operation.ids):
            strange = {**ours.ids, **{name: theirs.ids[name] for name in names}}
            unknown = {**ours.ids, **{name: str(uuid4()) for name in names}}
            answer = ours.send(operation, operation.body(strange))
            wanted = ours.send(operation, operation.body(unknown))
            assert (answer.status_code, answer.content) == (wanted.status_code, wanted.content)
            check_refused(answer, 401, 404)


def test_another_accounts_groups_take_no_file(ours: Caller, theirs: Caller) -> None:
    list_ = rfc4180.write(customers(3))
    with unharmed(ours, theirs):
        for names in some_of(CHECK.ids):
            answer = ours.upload(list_, {name: theirs.ids[name] for name in names})
            wanted = ours.upload(list_, {name: str(uuid4()) for name in names})
            assert (answer.status_code, answer.content) == (wanted.status_code, wanted.content)
            check_refused(answer, 401, 404)


def test_of_two_ids_with_one_name_the_last_counts(ours: Caller, theirs: Caller) -> None:
    own, other = ours.ids["campaign_id"], theirs.ids["campaign_id"]
    body = '{"campaign_id": "%s", "campaign_id": "%s"}'
    history = Operation("POST", contract.RERUN_HISTORY)
    with unharmed(ours, theirs):
        check_refused(ours.send(history, (body % (own, other)).encode()), 404)
        assert ours.send(history, (body % (other, own)).encode()).status_code == 200


# ---- paths ------------------------------------------------------------------------------------

TRICKS = [
    "../../keys.json",
    "..",
    ".",
    "/etc/passwd",
    "..%2f..%2fkeys.json",
    "%2e%2e%2fkeys.json",
    "%252e%252e%252f",
    "..\\..\\keys.json",
    "file:///etc/passwd",
    "C:\\",
    "~",
    "$(id)",
    "a\r\nset-cookie: b",
    "\u202e\ufeff",
    "' OR 1=1 --",
    "x" * 200,
]


def files_of(sandbox: Sandbox) -> set[Path]:
    """What lies in the data folder, beside the files of the database and of the audit log."""
    found = sandbox.settings.data.rglob("*")
    return {path for path in found if not path.name.startswith(("sandbox.db", "audit.jsonl"))}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_path_as_an_id_is_an_unknown_id(ours: Caller, trick: str) -> None:
    files = files_of(ours.company.sandbox)
    with unharmed(ours):
        for operation in OPERATIONS:
            for names in some_of(operation.ids):
                answer = ours.send(
                    operation, operation.body({**ours.ids, **dict.fromkeys(names, trick)})
                )
                check_refused(answer, 401, 404)
    assert files_of(ours.company.sandbox) == files


@pytest.mark.parametrize("trick", [*TRICKS, "{{ 7*7 }}", "=cmd|' /C calc'!A0", "<script>"])
def test_a_path_as_a_name_is_a_name(company: Company, trick: str) -> None:
    files = files_of(company.sandbox)
    workspace = company.seeded.workspace_id
    with company.client() as client:
        group = client.create_group(workspace, trick, trick)
        field_ = client.create_field(
            CreateField(workspace_id=workspace, field_name=trick, field_type="string")
        )
        assert (group.name, group.description, field_.field_name) == (trick, trick, trick)
        row = pl.DataFrame({**CUSTOMER, trick: trick}).cast(pl.String)
        client.upload_customers(workspace, group.customer_group_id, rfc4180.write(row))
        (customer,) = client.customers(workspace, group.customer_group_id)
        assert customer.profile[trick] == trick
        assert trick in [each.name for each in client.list_groups(workspace)]
        client.delete_field(field_.field_id)
    assert files_of(company.sandbox) == files


NUMBERS = ["-1", "1e400", "1.5", "1.0", '"0"', "true", "9" * 400, "9" * 5000, "[0]", "NaN", "-0.5"]


@on_one_database
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:10])
@pytest.mark.parametrize("name", ["file_num", "run_number", "page"])
def test_a_number_that_counts_nothing_is_refused(ours: Caller, name: str, number: str) -> None:
    with unharmed(ours):
        for operation in [each for each in OPERATIONS if name in each.rest]:
            check_refused(ours.send(operation, with_value(operation, ours.ids, name, number)))


@pytest.mark.parametrize("number", [2**31 - 1, 1])
def test_a_page_that_is_not_there_is_not_found(ours: Caller, number: int) -> None:
    with unharmed(ours):
        for operation in [each for each in OPERATIONS if "file_num" in each.rest]:
            body = {**operation.body(ours.ids), "file_num": number}
            check_refused(ours.send(operation, body), 404)


def with_value(operation: Operation, ids: Mapping[str, str], name: str, value: str) -> bytes:
    """A body that is right but for one value, which stands there as it is."""
    body = {**operation.body(ids), name: "the value"}
    return json.dumps(body).replace('"the value"', value).encode()


# ---- links ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def link(ours: Caller) -> httpx.URL:
    with ours.company.client() as client:
        return httpx.URL(client.fetch_link(ours.ids["campaign_id"], 0).url)


def fetch_raw(link: httpx.URL, path: str) -> httpx.Response:
    """Asks for a path exactly as it is written."""
    with closing(http.client.HTTPConnection(link.host, link.port, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        headers = dict(answer.getheaders())
        return httpx.Response(answer.status, headers=headers, content=answer.read())


@on_one_database
@pytest.mark.parametrize(
    "path",
    [
        "/exports/../keys.json",
        "/exports/%2e%2e/run-1/keys.json",
        "/exports/..%2f..%2fkeys.json/run-1/00000.csv",
        "/exports/{campaign}/run-1/../../../keys.json",
        "/exports/{campaign}/run-1/..%2F..%2F..%2Fkeys.json",
        "/exports/{campaign}/run-1/%2Fetc%2Fpasswd",
        "/exports/{campaign}/run-1/%00",
        "/exports/%00/run-1/00000.csv",
        "/exports/{campaign}/run--1/00000.csv",
        "/exports/{campaign}/run-1e400/00000.csv",
        "/exports/{campaign}/run-01/00000.csv",
        "/exports/{campaign}/run-1/00000.csv%3F",
        "/exports/{campaign}/run-" + "9" * 5000 + "/00000.csv",
        "/exports//etc/passwd",
        "//exports/{campaign}/run-1/00000.csv",
        "/exports/%ff%fe/run-1/00000.csv",
    ],
    ids=lambda path: path[:50],
)
def test_a_link_to_elsewhere_serves_nothing(link: httpx.URL, ours: Caller, path: str) -> None:
    target = path.format(campaign=ours.ids["campaign_id"])
    with unharmed(ours):
        for query in ("", f"?{link.query.decode()}"):
            answer = fetch_raw(link, target + query)
            check_refused(answer, 400, 401, 403, 404)


@pytest.mark.parametrize(
    ("changes", "statuses"),
    [
        ({"signature": ""}, (403,)),
        ({"signature": "0" * 64}, (403,)),
        ({"signature": "é"}, (403,)),
        ({"signature": "\0"}, (403,)),
        ({"expires": "1"}, (403,)),
        ({"expires": "-1"}, (403,)),
        ({"expires": "9" * 400}, (403,)),
        ({"expires": "9" * 5000}, (400,)),
        ({"expires": "1e400"}, (400,)),
        ({"expires": "NaN"}, (400,)),
        ({"expires": ""}, (400,)),
    ],
)
def test_a_changed_link_serves_nothing(
    link: httpx.URL, ours: Caller, changes: dict[str, str], statuses: tuple[int, ...]
) -> None:
    with unharmed(ours):
        assert ours.http.get(link).status_code == 200
        check_refused(ours.http.get(link.copy_merge_params(changes)), *statuses)


@pytest.mark.parametrize("name", ["signature", "expires"])
def test_half_a_link_serves_nothing(link: httpx.URL, ours: Caller, name: str) -> None:
    with unharmed(ours):
        check_refused(ours.http.get(link.copy_remove_param(name)), 401)
        longer = link.copy_set_param(name, f"{link.params[name]}0")
        check_refused(ours.http.get(longer), 403)


# ---- templates --------------------------------------------------------------------------------

INJECTIONS = [
    "{{ 7*7 }}",
    "{% for %}",
    "{{ ''.__class__ }}",
    "{{ first_name }}",
    "{{",
    "}}",
    "{#",
    "{% raw %}",
    '"}}{{ 7*7 }}{{"',
    "\\u007b{ 7*7 }}",
    "${7*7}",
    "%s %(x)s {0.__class__}",
    "a\r\nb\n\tc\\",
]


@pytest.mark.parametrize("name", INJECTIONS[:3])
def test_what_looks_like_a_template_comes_out_as_it_went_in(company: Company, name: str) -> None:
    """As the name of a field, as a customer's value, and as a segment's."""
    one = company.seeded
    rows = pl.DataFrame(
        {
            "customer_id": [f"{number}" for number in range(len(INJECTIONS))],
            "first_name": INJECTIONS,
            "last_name": INJECTIONS[::-1],
            "plan": INJECTIONS,
            "region": INJECTIONS[::-1],
            name: INJECTIONS,
        }
    )
    with company.client() as client:
        client.create_field(
            CreateField(workspace_id=one.workspace_id, field_name=name, field_type="string")
        )
        use(company, variables=["plan", "region", name])
        group = new_group(client, company, rows)
        assert client.initiate_rerun(one.campaign_id, group).run.segment_count == len(INJECTIONS)
        assert company.settle(client).status == Status.READY_FOR_REVIEW
        segments = [each.segment for each in client.rerun_messages(one.campaign_id)]
        company.sandbox.approve(one.campaign_id).raise_for_status()
        client.publish(one.campaign_id)
        while not client.count_message_pages(one.campaign_id):
            pass
        written = rfc4180.read(client.fetch_csv(one.campaign_id, 0).encode())
        profiles = [each.profile for each in client.customers(one.workspace_id, group)]
    assert sorted(each[name] for each in segments) == sorted(INJECTIONS)
    assert sorted(str(each[name]) for each in profiles) == sorted(INJECTIONS)
    for customer_id, first_name, last_name, plan, region, _ in rows.rows():
        (message,) = written.filter(customer_id=customer_id)["message"]
        assert message == filled(first_name, last_name, plan, region)


def filled(first_name: str, last_name: str, plan: str, region: str) -> str:
    """The demo campaign's text, without any template."""
    start, _, rest = demo_customers.TEMPLATE.partition("{{ first_name }}")
    before, _, rest = rest.partition("{{ last_name }}")
    to_plan, _, rest = rest.partition("{{ plan }}")
    to_region, _, end = rest.partition("{{ region }}")
    return "".join([start, first_name, before, last_name, to_plan, plan, to_region, region, end])


def use(company: Company, **values: Any) -> None:
    """Sets up the campaign as its owners would in the platform."""
    with company.sandbox.context.store.write() as session:
        campaign = session.get_one(Campaign, company.seeded.campaign_id)
        for name, value in values.items():
            setattr(campaign, name, value)


def new_group(client: NudgescribeClient, company: Company, rows: pl.DataFrame) -> str:
    where = company.seeded.workspace_id
    group = client.create_group(where, "Hostile").customer_group_id
    answer = client.upload_customers(where, group, rfc4180.write(rows))
    assert (answer.accepted, answer.rejected) == (rows.height, 0)
    return group


@pytest.mark.parametrize(
    "template",
    [
        "{{ 7*7 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ plan.upper() }}",
        "{{ plan | upper }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for x in range(10**9) %}a{% endfor %}",
        "{% set x = 1 %}",
        "{% include 'keys.json' %}",
        "{% import 'x' as y %}",
        "{{ 'a' * 10**9 }}",
        "{{ lipsum(10**6) }}",
        "{{ plan",
        "{{" + "(" * 5000 + "plan" + ")" * 5000 + "}}",
    ],
    ids=lambda template: template[:40],
)
def test_a_template_that_would_do_something_fails_the_run(company: Company, template: str) -> None:
    use(company, template=template)
    with company.client() as client:
        messages = client.rerun_messages(company.seeded.campaign_id)
        group = new_group(client, company, customers(10))
        client.initiate_rerun(company.seeded.campaign_id, group)
        run = company.settle(client)
        assert run.status == Status.FAILED
        assert run.error is not None
        assert "template" in run.error
        assert template not in run.error
        assert client.rerun_messages(company.seeded.campaign_id) == messages
        copied = client.rerun_messages(company.seeded.campaign_id, run.run_number)
        assert {each.message for each in copied} <= {each.message for each in messages}


HOSTILE_NAMES = [
    "row",
    "field",
    "code",
    "column",
    "len",
    "literal",
    "number of the row",
    "number of the segment",
    "message",
    "a,b",
    'q"q',
    "a\nb",
    " ",
]
"""What those who count, join and write columns may call their own."""


@pytest.mark.parametrize("name", ["*", "^.*$", "^$", "^(customer_id|plan)$", "^a\nb$"])
def test_a_field_is_not_named_as_a_pattern_of_columns(ours: Caller, name: str) -> None:
    with unharmed(ours):
        check_refused(ours.send(CREATE_FIELD, {**CREATE_FIELD.body(ours.ids), "field_name": name}))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_field_may_have_any_name(company: Company, name: str) -> None:
    one = company.seeded
    rows = customers(5).with_columns(pl.Series(name, [f"value {row}" for row in range(5)]))
    wrong = {**CUSTOMER, "first_name": "", name: "a\0b"}
    with company.client() as client:
        client.create_field(
            CreateField(workspace_id=one.workspace_id, field_name=name, field_type="string")
        )
        use(company, variables=[name])
        group = new_group(client, company, rows)
        answer = client.upload_customer(one.workspace_id, group, wrong)
        assert {(each.field, each.code) for each in answer.errors} == {
            ("first_name", "required"),
            (name, "nul"),
        }
        client.initiate_rerun(one.campaign_id, group)
        assert company.settle(client).status == Status.READY_FOR_REVIEW
        found = [dict(each.segment) for each in client.rerun_messages(one.campaign_id)]
        assert found == [{name: f"value {row}"} for row in range(5)]
        company.sandbox.approve(one.campaign_id).raise_for_status()
        job = client.publish(one.campaign_id).job_uid
        assert outcome(company.sandbox, job) == "done"
        assert rfc4180.read(client.fetch_csv(one.campaign_id, 0).encode()).height == 5
        profiles = [each.profile for each in client.customers(one.workspace_id, group)]
        assert sorted(str(each[name]) for each in profiles) == [f"value {row}" for row in range(5)]


def outcome(sandbox: Sandbox, job_uid: str) -> str:
    """How a job ended."""
    state = "queued"
    while state in ("queued", "running"):
        with sandbox.context.store.read() as session:
            state = session.scalars(select(Job.state).where(Job.uid == job_uid)).one()
    return state


# ---- hostile files ----------------------------------------------------------------------------


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("customers.csv", COLUMNS * 1000)
    return file.getvalue()


LIST = COLUMNS + b"1,Anna,basic,North\n"
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
    "a column's name of a megabyte": lambda: COLUMNS[:-1] + b"," + b"x" * MIB + b"\n",
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
def test_a_hostile_file_is_refused(ours: Caller, content: Callable[[], bytes]) -> None:
    file = content()
    with unharmed(ours):
        check_refused(ours.upload(file))


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b",,,\n"])
def test_a_million_empty_rows_are_rejected_rows(ours: Caller, line: bytes) -> None:
    with unharmed(ours):
        answer = ours.upload(COLUMNS + line * 1_000_000)
        assert answer.status_code == 200
        result = answer.json()
        assert (result["accepted"], result["rejected"]) == (0, 1_000_000)


def test_a_row_longer_than_any_list_has_is_refused(
    ours: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfc4180, "LONGEST_ROW", 1000)
    monkeypatch.setattr(uploads, "PIECE_BYTES", 500)
    with unharmed(ours):
        answer = ours.upload(LIST + b'2,"' + b"x" * 2000 + b'",basic,North\n')
        check_refused(answer)
        assert message_of(answer) == "The CSV holds a row of more than 1,000 bytes."


def test_a_nul_rejects_its_row_alone(ours: Caller) -> None:
    rows = b"1,a\0b,basic,North\n2,Anna,basic,North\n\0,Anna,basic,North\n"
    with unharmed(ours):
        result = ours.upload(COLUMNS + rows, validate_only="true").json()
    assert (result["accepted"], result["rejected"]) == (1, 2)
    found = [(each["row"], each["field"], each["code"]) for each in result["errors"]]
    assert found == [(1, "first_name", "nul"), (3, "customer_id", "nul")]


def test_a_bom_is_no_part_of_a_list(ours: Caller) -> None:
    with unharmed(ours):
        result = ours.upload(b"\xef\xbb\xbf" + LIST, validate_only="true").json()
    assert (result["accepted"], result["rejected"]) == (1, 0)


# ---- hostile forms ----------------------------------------------------------------------------

BOUNDARY = "multipart/form-data; boundary=x"
END = b"--x--\r\n"


def part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    head = b'--x\r\ncontent-disposition: form-data; name="%s"%s' % (name, more)
    return head + b"\r\n\r\n" + value + b"\r\n"


FILE = part(b"file", LIST, b'; filename="customers.csv"')
FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "5,000 fields": (BOUNDARY, lambda ids: ids + FILE + part(b"x", b"") * 5000 + END),
    "900 unknown fields": (
        BOUNDARY,
        lambda ids: ids + FILE + b"".join(part(b"f%d" % each, b"") for each in range(900)) + END,
    ),
    "5,000 files": (BOUNDARY, lambda ids: ids + FILE * 5000 + END),
    "a long field": (BOUNDARY, lambda ids: ids + FILE + part(b"x", b"y" * 2 * MIB) + END),
    "a long name": (BOUNDARY, lambda ids: ids + FILE + part(b"x" * MIB, b"") + END),
    "an unknown field": (BOUNDARY, lambda ids: ids + FILE + part(b"x", b"") + END),
    "10,000 headers": (BOUNDARY, lambda ids: b"--x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n" + END),
    "no file": (BOUNDARY, lambda ids: ids + END),
    "no ids": (BOUNDARY, lambda ids: FILE + END),
    "ids as files": (
        BOUNDARY,
        lambda ids: ids.replace(b'_id"', b'_id"; filename="a"') + FILE + END,
    ),
    "a file as text": (BOUNDARY, lambda ids: ids + part(b"file", LIST) + END),
    "a NUL": (BOUNDARY, lambda ids: ids + part(b"workspace_id", b"\0") + FILE + END),
    "a part without a name": (BOUNDARY, lambda ids: b"--x\r\n\r\n\r\n" + END),
    "cut off": (BOUNDARY, lambda ids: ids + b"--x\r\nconte"),
    "garbage": (BOUNDARY, lambda ids: b"\x82" * 1000),
    "empty": (BOUNDARY, lambda ids: b""),
    "no boundary": ("multipart/form-data", lambda ids: ids + FILE + END),
    "another boundary": ("multipart/form-data; boundary=y", lambda ids: ids + FILE + END),
    "another kind": ("multipart/mixed; boundary=x", lambda ids: ids + FILE + END),
    "URL-encoded": ("application/x-www-form-urlencoded", lambda ids: b"workspace_id=x"),
    "text": ("text/plain", lambda ids: b"{}"),
    "no kind": ("", lambda ids: b"{}"),
    "a charset of errors": (f"{BOUNDARY}; charset=undefined", lambda ids: ids + FILE + END),
    "a charset of its own": (f"{BOUNDARY}; charset=punycode", lambda ids: ids + FILE + END),
    "a surrogate": (
        f"{BOUNDARY}; charset=unicode_escape",
        lambda ids: ids + part(b"workspace_id", b"\\ud800") + FILE + END,
    ),
    "a surrogate in a name": (
        f"{BOUNDARY}; charset=utf-7",
        lambda ids: ids + part(b"+2AA-", b"") + FILE + END,
    ),
}


@on_one_database
@pytest.mark.parametrize(("kind", "content"), FORMS.values(), ids=FORMS)
def test_a_hostile_form_is_refused(
    ours: Caller, kind: str, content: Callable[[bytes], bytes]
) -> None:
    ids = b"".join(part(name.encode(), ours.ids[name].encode()) for name in CHECK.ids)
    with unharmed(ours):
        answer = ours.send(CHECK, content(ids), **{"content-type": kind})
        check_refused(answer, 400, 401)


def test_a_form_is_a_form_in_capitals_too(ours: Caller) -> None:
    ids = b"".join(part(name.encode(), ours.ids[name].encode()) for name in CHECK.ids)
    content = ids + part(b"validate_only", b"true") + FILE + END
    answer = ours.send(CHECK, content, **{"content-type": "Multipart/Form-Data; Boundary=x"})
    assert answer.json()["accepted"] == 1


# ---- hostile JSON -----------------------------------------------------------------------------

BODIES: dict[str, Callable[[], bytes]] = {
    "no JSON": lambda: b"{",
    "more than JSON": lambda: b"{} {}",
    "a text": lambda: b'"text"',
    "a number": lambda: b"7",
    "a list": lambda: b"[]",
    "not a number": lambda: b"NaN",
    "arrays in arrays": lambda: b"[" * 500_000,
    "objects in objects": lambda: b'{"a":' * 200_000,
    "deep and closed": lambda: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a huge number": lambda: b"9" * 100_000,
    "not UTF-8": lambda: b'{"workspace_id": "\xff"}',
    "NULs": lambda: b"\0" * 1000,
    "an unknown field": lambda: b'{"unknown": 1}',
    "a NUL as a name": lambda: b'{"\\u0000": 1}',
    "a surrogate as a name": lambda: b'{"\\ud800": 1}',
    "a form": lambda: b"workspace_id=x",
    "a list of customers": lambda: LIST,
    "100,000 unknown fields": lambda: json.dumps(dict.fromkeys(map(str, range(100_000)))).encode(),
    "one long unknown field": lambda: json.dumps({"x" * MIB: 1}).encode(),
}


@on_one_database
@pytest.mark.parametrize("content", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_request_is_refused(ours: Caller, content: Callable[[], bytes]) -> None:
    body = content()
    with unharmed(ours):
        for operation in [CHECK, LIST_GROUPS, OPERATIONS[0], OPERATIONS[-1], LIST_CAMPAIGNS]:
            check_refused(ours.send(operation, body), 400, 401)
        check_refused(ours.send(SIGN_IN, body), 400, 401)


VALUES = ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, '"\\u0000"', '"\\ud800"', "[[]]"]


@every_operation
def test_a_value_that_is_none_is_refused(ours: Caller, operation: Operation) -> None:
    with unharmed(ours):
        for name, value in product(operation.body(ours.ids), VALUES):
            check_refused(ours.send(operation, with_value(operation, ours.ids, name, value)))


@pytest.mark.parametrize("value", VALUES[:-3] + VALUES[-2:], ids=lambda value: value[:10])
@pytest.mark.parametrize("name", ["first_name", "visits"])
def test_a_value_of_a_customer_that_is_none_is_refused(ours: Caller, name: str, value: str) -> None:
    body = {**CHECK.body(ours.ids), "customer": {**CUSTOMER, name: "the value"}}
    with unharmed(ours):
        content = json.dumps(body).replace('"the value"', value).encode()
        check_refused(ours.send(CHECK, content))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", '"\\u0000"', '"\\ud800"', "0"])
def test_a_time_that_is_none_is_refused(ours: Caller, value: str) -> None:
    with unharmed(ours):
        body = b'{"published_from": %s}' % value.encode()
        check_refused(ours.send(LIST_CAMPAIGNS, body))


@pytest.mark.parametrize("name", ["email", "password"])
@pytest.mark.parametrize("value", ['"\\u0000"', '"\\ud800"', "7", "NaN", "[]", "true", "null"])
def test_a_sign_in_that_is_none_is_refused(ours: Caller, name: str, value: str) -> None:
    with unharmed(ours):
        check_refused(ours.send(SIGN_IN, with_value(SIGN_IN, {}, name, value)))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sandbox/faults", b'{"endpoint": "/\\ud800"}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "delay": NaN}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "rate": 1e400}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "seed": ' + b"9" * 5000 + b"}"),
        ("/sandbox/accounts/{account}/quota", b'{"messages": 1e400}'),
        ("/sandbox/accounts/{account}/quota", b'{"messages": -1}'),
        ("/sandbox/accounts/%00/quota", b'{"messages": 1}'),
        ("/sandbox/accounts/..%2f..%2f/quota", b'{"messages": 1}'),
        ("/sandbox/accounts/%ff/quota", b'{"messages": 1}'),
    ],
)
def test_the_controls_refuse_what_is_none_of_theirs(ours: Caller, path: str, body: bytes) -> None:
    with unharmed(ours):
        url = path.format(account=ours.company.seeded.account_id)
        headers = {"content-type": "application/json"}
        check_refused(ours.http.put(url, content=body, headers=headers), 400, 404)
        assert ours.http.get("/sandbox/faults").json() == {"faults": []}


WRONG_KINDS = ["text/plain", "application/xml", "text/csv", BOUNDARY, "", "application/jsonx", ";"]


@on_one_database
@every_operation
def test_a_body_that_is_not_said_to_be_json_is_refused(ours: Caller, operation: Operation) -> None:
    with unharmed(ours):
        for kind in WRONG_KINDS:
            check_refused(ours.send(operation, **{"content-type": kind}), 400, 401)


@cache
def bomb() -> bytes:
    return gzip.compress(b" " * 50 * MIB)


@on_one_database
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-gzip", "gzip, gzip", "?"])
@pytest.mark.parametrize("operation", [CHECK, LIST_GROUPS, OPERATIONS[-1]], ids=str)
def test_a_packed_body_is_refused(ours: Caller, operation: Operation, encoding: str) -> None:
    with unharmed(ours):
        answer = ours.send(operation, bomb(), **{"content-encoding": encoding})
        check_refused(answer, 415)


@on_one_database
@pytest.mark.parametrize(
    ("operation", "name", "value"),
    [
        (CHECK, "customer", json.dumps({f"{number}": True for number in range(200_000)})),
        (CHECK, "customer", json.dumps({f"{number}": "" for number in range(900)})),
        (OPERATIONS[11], "customer_ids", json.dumps([0] * 200_000)),
    ],
    ids=["wrong values", "unknown columns", "wrong identifiers"],
)
def test_many_mistakes_are_told_in_few_words(
    ours: Caller, operation: Operation, name: str, value: str
) -> None:
    before = peak_mib(os.getpid())
    with unharmed(ours):
        check_refused(ours.send(operation, with_value(operation, ours.ids, name, value)))
    assert peak_mib(os.getpid()) < before + 200


# ---- too much ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(
    database: str | None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Caller]:
    """A company of a service that takes little."""
    other = database and new_database(request.getfixturevalue("postgresql_server"))
    data = tmp_path_factory.mktemp("narrow")
    limits = Settings(data=data, database=other, largest_file=200_000, largest_body=50_000)
    with serving(limits) as service, closing_caller(service) as caller:
        yield caller


def in_pieces(content: bytes) -> Iterator[bytes]:
    """Sent without a Content-Length."""
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


@on_one_database
@pytest.mark.parametrize("send", [bytes, in_pieces], ids=["told", "untold"])
@pytest.mark.parametrize(
    ("operation", "kind", "size"),
    [
        (CHECK, BOUNDARY, 200_001),
        (CHECK, "application/json", 50_001),
        (LIST_GROUPS, "application/json", 50_001),
        (LIST_GROUPS, BOUNDARY, 50_001),
        (SIGN_IN, "application/json", 50_001),
        (Operation("PUT", "/sandbox/faults"), "application/json", 50_001),
    ],
    ids=str,
)
def test_a_body_above_the_limit_is_too_large(
    narrow: Caller,
    operation: Operation,
    kind: str,
    size: int,
    send: Callable[[bytes], Any],
) -> None:
    start = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with unharmed(narrow):
        answer = narrow.http.request(
            operation.method,
            operation.path,
            content=send(start.ljust(size, b"x")),
            headers={"content-type": kind},
        )
        check_refused(answer, 413)
        assert message_of(answer) == "The body is too large."


@on_one_database
@pytest.mark.parametrize(
    ("headers", "mib", "status"),
    [
        ({}, 48, 413),
        ({"content-encoding": "gzip"}, 48, 415),
        ({"authorization": "Bearer x"}, 24, 403),
    ],
    ids=["too large", "packed", "not allowed"],
)
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_a_client_that_does_not_stop_sending_hears_why_it_was_refused(
    ours: Caller, headers: dict[str, str], mib: int, status: int, told: bool
) -> None:
    """Also when the connection ends with the call: not under a client that still sends."""
    length = {"content-length": str(mib * MIB)} if told else {}
    sent = {**ours.http.headers, "connection": "close", **length, **headers}
    where = ours.http.base_url
    with (
        unharmed(ours),
        closing(http.client.HTTPConnection(where.host, where.port, timeout=60)) as connection,
    ):
        content = repeat(b"x" * MIB, mib)
        connection.request("POST", contract.GROUPS, content, sent, encode_chunked=not told)
        answer = connection.getresponse()
        assert answer.status == status
        assert json.loads(answer.read())["message"]


@pytest.fixture
def apart(settings: Settings, seeded: seed.Seeded) -> Iterator[tuple[NudgescribeClient, str, int]]:
    """A service in a process of its own, with the limits it has by default."""
    url = f"http://127.0.0.1:{(port := local.free_port())}"
    with local.child(
        "-m", "sandbox", "serve", "--port", str(port), "--data", str(settings.data)
    ) as process:
        local.wait_for(url, process, 60)
        with NudgescribeClient(url, credentials_of(seeded)) as client:
            yield client, url, process.pid


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_cell_of_2_gib_takes_no_memory(
    apart: tuple[NudgescribeClient, str, int], seeded: seed.Seeded
) -> None:
    client, url, pid = apart
    where = seeded.workspace_id, seeded.customer_group_id
    before, peak = client.count_customers(*where), peak_mib(pid)
    start = FILE[: FILE.index(b"Anna")] + b'"'
    end = b'",basic,North\r\n' + END
    size = 2048 * MIB
    headers = {
        "authorization": f"Bearer {sign_in(url, seeded)}",
        "content-type": BOUNDARY,
        "content-length": str(len(start) + size + len(end)),
    }
    content = chain([start], repeat(b"x" * MIB, size // MIB), [end])
    answer = httpx.post(
        url + contract.CUSTOMERS_CHECK, content=content, headers=headers, timeout=60
    )
    check_refused(answer, 413)
    assert peak_mib(pid) < peak + 32
    assert client.count_customers(*where) == before
    # Who listens while sending hears it at once.
    target = httpx.URL(url)
    with closing(http.client.HTTPConnection(target.host, target.port, timeout=60)) as connection:
        connection.putrequest("POST", contract.CUSTOMERS_CHECK)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(start)
        assert connection.getresponse().status == 413


@pytest.mark.chaos
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_million_mistakes_take_little_memory(
    apart: tuple[NudgescribeClient, str, int], seeded: seed.Seeded
) -> None:
    client, url, pid = apart
    where = seeded.workspace_id, seeded.customer_group_id
    ids = dict(zip(CHECK.ids, where, strict=True))
    headers = {
        "authorization": f"Bearer {sign_in(url, seeded)}",
        "content-type": "application/json",
    }
    many = range(1_000_000)
    for method, path, body in (
        ("POST", contract.AUTH, dict.fromkeys(map(str, many))),
        ("DELETE", contract.CUSTOMERS, {**ids, "customer_ids": [0 for _ in many]}),
        ("POST", contract.CUSTOMERS_CHECK, {**ids, "customer": {f"{each}": [] for each in many}}),
    ):
        before, content = peak_mib(pid), json.dumps(body)
        answer = httpx.request(method, url + path, content=content, headers=headers, timeout=60)
        check_refused(answer, 400)
        assert peak_mib(pid) < before + 400
    assert client.count_customers(*where).total == 300


def sign_in(url: str, one: seed.Seeded) -> str:
    body = {"email": one.email, "password": one.password}
    headers = {contract.API_KEY_HEADER: one.api_key}
    return httpx.post(url + contract.AUTH, json=body, headers=headers).json()["access_token"]


# ---- the audit log ----------------------------------------------------------------------------


def test_refused_calls_are_written_down_without_what_they_held(ours: Caller) -> None:
    marker = f"marker-{uuid4()}"
    log = ours.company.sandbox.settings.audit_file
    before = len(log.read_bytes().splitlines())
    customer = {**CHECK.body(ours.ids), "customer": {**CUSTOMER, marker: marker}}
    with unharmed(ours):
        answers = [
            ours.send(LIST_GROUPS, {"workspace_id": marker}, **{contract.CLIENT_IP_HEADER: marker}),
            ours.send(LIST_GROUPS, authorization=f"Bearer {marker}"),
            ours.send(LIST_CAMPAIGNS, **{contract.AUTH_CONTEXT_HEADER: marker}),
            ours.send(LIST_GROUPS, {"workspace_id": "x", marker: marker}),
            ours.send(LIST_GROUPS, marker.encode()),
            ours.send(LIST_GROUPS, **{"content-encoding": marker}),
            ours.send(CHECK, customer),
            ours.send(SIGN_IN, {"email": marker, "password": marker}),
            ours.http.post(f"{contract.GROUPS}?{marker}={marker}", json={}),
            ours.http.post(f"/v1/{marker}", json={}),
            ours.upload(f"customer_id,{marker}\n{marker},1\n".encode()),
        ]
    lines = log.read_text().splitlines()[before:]
    entries = [json.loads(line) for line in lines]
    assert [entry["status"] for entry in entries[: len(answers)]] == [
        answer.status_code for answer in answers
    ]
    assert all(answer.is_client_error for answer in answers)
    assert marker not in "".join(lines)
    assert {entry["ip"] for entry in entries} == {None, "192.0.2.1"}
    assert all({*entry} == {*entries[0]} for entry in entries)
