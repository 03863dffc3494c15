"""Raw calls to a Nudgescribe service in the contract's own words, with no client between.

Names and paths are written out here and in the tests, and not taken from the code they test.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any, Self, TypeVar

import httpx
import jwt

from tests.conftest import Company

BASE_URL = "NUDGESCRIBE_BASE_URL"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
"""An id that no account has."""
NO_BODY = object()

T = TypeVar("T")
Object = dict[str, Any]
Changes = Mapping[str, str | bytes | None]


@dataclass(frozen=True)
class Endpoint:
    """A verb and a path; `body` has the required fields, with unknown ids, `more` the others."""

    verb: str
    path: str
    body: Object
    more: Object = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


_WORKSPACE: Object = {"workspace_id": UNKNOWN}
_GROUP: Object = {"workspace_id": UNKNOWN, "customer_group_id": UNKNOWN}
_CAMPAIGN: Object = {"campaign_id": UNKNOWN}
_CHANGEABLE: Object = {"display_name": "x", "field_format": "EUR", "required": False}
_RUN: Object = {"run_number": 1}
_TIME = "2024-02-29T00:00:00Z"

FIELD_ENDPOINTS = [
    Endpoint(
        "PUT",
        "/v1/cpf",
        {**_WORKSPACE, "field_name": "x", "field_type": "string"},
        {**_CHANGEABLE, "unique": False},
    ),
    Endpoint("POST", "/v1/cpf", _WORKSPACE),
    Endpoint("PATCH", "/v1/cpf", {"field_id": UNKNOWN}, _CHANGEABLE),
    Endpoint("DELETE", "/v1/cpf", {"field_id": UNKNOWN}),
]
GROUP_ENDPOINTS = [
    Endpoint("PUT", "/v1/cg", {**_WORKSPACE, "name": "x"}, {"description": "x"}),
    Endpoint("POST", "/v1/cg", _WORKSPACE),
    Endpoint("PATCH", "/v1/cg", {"customer_group_id": UNKNOWN}, {"name": "x", "description": "x"}),
    Endpoint("DELETE", "/v1/cg", {"customer_group_id": UNKNOWN}),
]
CUSTOMER_ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/customer/check",
        {**_GROUP, "customer": {"customer_id": "1"}},
        {"validate_only": True},
    ),
    Endpoint("POST", "/v1/customer/pages", _GROUP),
    Endpoint("POST", "/v1/customer", {**_GROUP, "page": 0}),
    Endpoint("DELETE", "/v1/customer", {**_GROUP, "customer_ids": ["1"]}),
]
FETCHES = [
    Endpoint("POST", "/v1/messages/fetch", {**_CAMPAIGN, "file_num": 0, "export_type": kind}, _RUN)
    for kind in ("utf8", "json", "url")
]
MESSAGE_ENDPOINTS = [
    Endpoint("POST", "/v1/messages/publish", _CAMPAIGN),
    Endpoint("POST", "/v1/messages/pages", _CAMPAIGN, _RUN),
    FETCHES[0],
]
RERUN_ENDPOINTS = [
    Endpoint(
        "POST", "/v1/campaign/rerun/initiate", {**_CAMPAIGN, "new_customer_group_id": UNKNOWN}
    ),
    Endpoint("POST", "/v1/campaign/rerun/history", _CAMPAIGN),
    Endpoint("POST", "/v1/campaign/rerun/messages", _CAMPAIGN, _RUN),
]
CAMPAIGN_LIST = Endpoint(
    "POST", "/v1/campaign/all", {}, {"published_from": _TIME, "published_to": _TIME}
)
SIGN_IN = Endpoint("POST", "/v1/auth", {"email": "x", "password": "x"})

CONTENT_ENDPOINTS = [*FIELD_ENDPOINTS, *GROUP_ENDPOINTS, *CUSTOMER_ENDPOINTS]
CAMPAIGN_ENDPOINTS = [CAMPAIGN_LIST, *MESSAGE_ENDPOINTS, *RERUN_ENDPOINTS]
"""The campaign, message and rerun endpoints, which demand three headers."""


@dataclass(frozen=True)
class Access:
    """A service, an account's credentials there, and the ids to begin with."""

    base_url: str
    email: str
    password: str
    api_key: str
    api_code: str
    profile_key: str
    workspace_id: str
    customer_group_id: str
    campaign_id: str

    @classmethod
    def of(cls, company: Company) -> Self:
        """Return the access to a company of a sandbox."""
        values = company.seeded.model_dump(exclude={"account_id"})
        return cls(base_url=company.sandbox.url, **values)

    @classmethod
    def from_environment(cls) -> Self | None:
        """Return the access that the environment describes, None if it describes none.

        Raises LookupError if a part of it is missing.
        """
        if BASE_URL not in os.environ:
            return None
        names = [f"NUDGESCRIBE_{name.upper()}" for name in cls.__annotations__]
        if missing := [name for name in names if name not in os.environ]:
            raise LookupError(f"{BASE_URL} is set; also needed: {', '.join(missing)}")
        return cls(*(os.environ[name] for name in names))


class Account:
    """A signed-in account. Calls carry all headers in order; each can be changed or left out."""

    def __init__(self, access: Access, http: httpx.Client) -> None:
        self.access = access
        self.http = http
        answer = self.sign_in()
        assert answer.status_code == 200, "the account's credentials do not sign in"
        self.tokens: Object = answer.json()
        self.headers = {
            "authorization": f"Bearer {self.tokens['access_token']}",
            "x-auth-context": json.dumps({"api_access": True, "api_code": access.api_code}),
            "x-ip": "192.0.2.1",
            "x-api-key": access.api_key,
            "content-type": "application/json",
        }

    def sign_in(self, headers: Changes | None = None, **changes: str) -> httpx.Response:
        """Sign in with the account's credentials, or with others."""
        body = {"email": self.access.email, "password": self.access.password, **changes}
        sent = _changed({"x-api-key": self.access.api_key}, headers)
        return self.http.post("/v1/auth", json=body, headers=sent)

    @property
    def claims(self) -> Object:
        """The claims of the access token, not verified."""
        return claims_of(self.tokens["access_token"])

    @property
    def ids(self) -> Object:
        """The account's own ids by their names on the wire."""
        names = ("workspace_id", "customer_group_id", "campaign_id")
        return {name: getattr(self.access, name) for name in names}

    def call(
        self, verb: str, path: str, body: object = NO_BODY, headers: Changes | None = None
    ) -> httpx.Response:
        """Make one call; a body of bytes is sent as it is, any other as JSON."""
        content = None
        if body is not NO_BODY:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.request(
            verb, path, content=content, headers=_changed(self.headers, headers)
        )

    def ask(self, path: str, body: Object, verb: str = "POST") -> Object:
        """Return the answer of a call that must succeed."""
        response = self.call(verb, path, body)
        assert response.status_code == 200, refusal(response)
        return response.json()

    def refused(
        self, path: str, body: object, headers: Changes | None = None, verb: str = "POST"
    ) -> tuple[int, str]:
        """Return status and text of a call that must fail."""
        return refusal(self.call(verb, path, body, headers))

    def fields(self) -> list[Object]:
        return self.ask("/v1/cpf", {"workspace_id": self.access.workspace_id})["fields"]

    def groups(self) -> list[Object]:
        return self.ask("/v1/cg", {"workspace_id": self.access.workspace_id})["groups"]

    def campaign(self) -> Object:
        """Return the account's campaign as the list of campaigns has it."""
        workspaces = self.ask("/v1/campaign/all", {})["workspaces"]
        every = [one for each in workspaces for one in each["campaigns"]]
        (found,) = [one for one in every if one["campaign_id"] == self.access.campaign_id]
        return found

    def ask_campaign(self, path: str, **fields: object) -> Object:
        """Return the answer of an endpoint about the account's campaign."""
        return self.ask(path, {"campaign_id": self.access.campaign_id, **fields})

    def refused_campaign(self, path: str, **fields: object) -> tuple[int, str]:
        return self.refused(path, {"campaign_id": self.access.campaign_id, **fields})

    def runs(self) -> list[Object]:
        return self.ask_campaign("/v1/campaign/rerun/history")["runs"]

    def messages(self, **fields: object) -> list[Object]:
        return self.ask_campaign("/v1/campaign/rerun/messages", **fields)["messages"]

    def num_files(self, **fields: object) -> int:
        return self.ask_campaign("/v1/messages/pages", **fields)["num_files"]

    def fetch(self, export_type: str, file_num: int = 0, **fields: object) -> Object:
        return self.ask_campaign(
            "/v1/messages/fetch", export_type=export_type, file_num=file_num, **fields
        )


@contextmanager
def signed_in(access: Access) -> Iterator[Account]:
    """Yield the signed-in account."""
    with httpx.Client(base_url=access.base_url, timeout=30) as http:
        yield Account(access, http)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Return status and error text; the text is empty if the answer is no error."""
    return response.status_code, response.json().get("message", "")


def claims_of(token: str) -> Object:
    return jwt.decode(token, options={"verify_signature": False})


def until(look: Callable[[], T], holds: Callable[[T], bool], seconds: float = 60) -> T:
    """Poll `look` until its result satisfies `holds`; return it. Fail after so many seconds."""
    deadline = monotonic() + seconds
    while not holds(seen := look()):
        assert monotonic() < deadline, f"the condition was not met in {seconds} s"
        sleep(0.01)
    return seen


def utc(text: str) -> datetime:
    """Parse a time of the wire; fail unless it is ISO 8601 in UTC."""
    time = datetime.fromisoformat(text)
    assert time.utcoffset() == timedelta(0), f"{text} is not in UTC"
    return time.astimezone(UTC)


def has_shape(answer: Object, **shape: Any) -> bool:
    """Check that all fields are there and of their types; other fields are ignored."""
    missing = [name for name in shape if name not in answer]
    assert not missing, f"not in the answer: {missing}"
    wrong = [name for name, kind in shape.items() if not _is(answer[name], kind)]
    assert not wrong, f"of another type than the contract's: {wrong}"
    return True


def _is(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))


def _changed(headers: Changes, changes: Changes | None) -> dict[str, str | bytes]:
    changed = {**headers, **(changes or {})}
    return {name: value for name, value in changed.items() if value is not None}
