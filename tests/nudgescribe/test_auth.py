import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from nudgescribe import auth, errors
from nudgescribe.auth import Credentials, TokenAuth
from nudgescribe.contract import AUTH, CAMPAIGNS, GROUPS
from nudgescribe.transport import own_address
from tests.conftest import Company
from tests.support.clock import Clock
from tests.support.response_tamperer import Fault, ResponseTamperer


def refusal(status: int, text: str) -> httpx.Response:
    return httpx.Response(status, json={"message": text})


REFUSAL = refusal(403, "auth error")
REFUSALS = [REFUSAL, refusal(401, "auth error"), refusal(401, "Unauthorized")]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_call_carries_all_documented_headers(company: Company) -> None:
    transport = ResponseTamperer()
    with company.client(transport=transport, client_ip="192.0.2.7") as client:
        client.campaigns()
    sign_in, call = transport.requests
    assert sign_in.headers["x-api-key"] == company.seeded.api_key
    email, password = company.seeded.email, company.seeded.password
    assert json.loads(sign_in.content) == {"email": email, "password": password}
    assert call.headers["authorization"].startswith("Bearer ")
    context = {"api_access": True, "api_code": company.seeded.api_code}
    assert json.loads(call.headers["x-auth-context"]) == context
    assert call.headers["x-ip"] == "192.0.2.7"
    assert call.headers["content-type"] == "application/json"


def test_call_carries_this_machines_address_by_default(company: Company) -> None:
    transport = ResponseTamperer()
    with company.client(transport=transport) as client:
        client.campaigns()
    assert transport.requests[-1].headers["x-ip"] == own_address()


@pytest.mark.parametrize(
    "client_ip",
    [
        *("", "localhost", "1.2.3.4, 5.6.7.8", "s3cret\r\nx: y"),
        *("fe80::1%eth0", "fe80::1%ü", "fe80::1%s3cret\r\nx: y", "1.2.3.4\n"),
        *(b"\x7f\0\0\1", 2130706433),
    ],
)
def test_client_ip_that_is_no_address_is_refused(company: Company, client_ip: Any) -> None:
    with pytest.raises(ValueError, match="client_ip is no IPv4 or IPv6 address") as caught:
        company.client(client_ip=client_ip)
    assert "s3cret" not in str(caught.value)


def test_sign_in_serves_all_calls_and_threads(company: Company) -> None:
    transport = ResponseTamperer()
    with company.client(transport=transport) as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: client.campaigns(), range(12)))
    assert transport.calls[AUTH] == 1


@pytest.mark.parametrize(
    ("fault", "methods"), [(None, ["POST", "GET"]), (REFUSAL, ["POST", "GET", "POST"])]
)
def test_token_is_renewed_before_it_expires_or_sign_in_repeats(
    company: Company, clock: Clock, fault: Fault | None, methods: list[str]
) -> None:
    transport = ResponseTamperer({AUTH: [None, fault]})
    url, lifetime = company.sandbox.url, company.sandbox.settings.access_token_seconds
    token_auth = TokenAuth(url, company.credentials, clock=lambda: clock.now)
    with httpx.Client(transport=transport, auth=token_auth, base_url=url) as http:
        for now in (0, lifetime - auth.RENEW_BEFORE_EXPIRY - 1):
            clock.now = now
            assert http.get("/docs").is_success
        assert transport.calls[AUTH] == 1
        clock.now += 2
        assert http.get("/docs").is_success
    asked = [request for request in transport.requests if request.url.path == AUTH]
    assert [request.method for request in asked] == methods
    assert asked[1].content == b""


@pytest.mark.parametrize("refused", REFUSALS)
def test_call_repeats_once_with_new_token_when_token_is_refused(
    company: Company, refused: httpx.Response
) -> None:
    transport = ResponseTamperer({CAMPAIGNS: [refused, None, refused, refused]})
    with company.client(transport=transport) as client:
        assert client.campaigns()
        assert transport.calls == {AUTH: 2, CAMPAIGNS: 2}
        with pytest.raises(errors.AuthError, match="auth error|Unauthorized"):
            client.campaigns()
    assert transport.calls[CAMPAIGNS] == 4


@pytest.mark.parametrize("refused", REFUSALS)
def test_change_is_made_once_when_its_token_is_refused(
    company: Company, refused: httpx.Response
) -> None:
    transport = ResponseTamperer({GROUPS: [refused]})
    with company.client(transport=transport) as client:
        client.create_group(company.seeded.workspace_id, "New")
    assert transport.calls == {AUTH: 2, GROUPS: 2}
    assert company.groups() == ["First customers", "New"]


@pytest.mark.parametrize("text", ["Campaign/details not found.", "Missing required fields."])
def test_token_is_kept_when_a_401_is_about_something_else(company: Company, text: str) -> None:
    transport = ResponseTamperer({CAMPAIGNS: [refusal(401, text)]})
    with company.client(transport=transport) as client:
        with pytest.raises(errors.ApiError, match=text):
            client.campaigns()
    assert transport.calls == {AUTH: 1, CAMPAIGNS: 1}


def test_token_is_kept_when_call_is_refused_for_another_reason(company: Company) -> None:
    transport = ResponseTamperer()
    with company.account(api_code="wrong").get_client(transport=transport) as client:
        with pytest.raises(errors.AuthError, match="Unauthorized"):
            client.campaigns()
    assert transport.calls == {AUTH: 1, CAMPAIGNS: 1}


@pytest.mark.parametrize("wrong", ["email", "password", "api_key"])
def test_sign_in_says_what_to_check_when_credentials_are_wrong(
    company: Company, wrong: str
) -> None:
    with company.account(**{wrong: "wrong@example.com"}).get_client() as client:
        with pytest.raises(errors.AuthError, match="Check email, password, api key") as caught:
            client.campaigns()
    assert "wrong@example.com" not in str(caught.value)


def test_sign_in_names_field_that_breaks_contract(company: Company) -> None:
    answer = httpx.Response(200, json={"access_token": 1, "refresh_token": "r", "expires_in": 9})
    with company.client(transport=ResponseTamperer({AUTH: [answer]})) as client:
        with pytest.raises(errors.ContractMismatch, match=r"access_token .*token_type"):
            client.campaigns()


def test_credentials_print_no_secret() -> None:
    shown = repr(Credentials("a@example.com", "pass", "key", "code", "profile"))
    assert shown == "Credentials(email='a@example.com')"
