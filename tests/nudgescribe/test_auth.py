import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from nudgescribe import auth, errors
from nudgescribe.auth import Credentials, TokenAuth
from nudgescribe.client import NudgescribeClient
from sandbox import seed
from sandbox.settings import Settings
from tests.conftest import Company, serving
from tests.support.response_tamperer import ResponseTamperer

AUTH = "/v1/auth"


@pytest.fixture
def hasty_company(tmp_path: Path) -> Iterator[Company]:
    """Its access tokens expire as soon as they are issued."""
    settings = Settings(data=tmp_path, access_token_seconds=-1)
    with serving(settings) as service:
        yield Company(service, seed.seed(service.context, 10))


def test_call_carries_all_documented_headers(company: Company) -> None:
    transport = ResponseTamperer()
    with company.client(transport=transport, client_ip="192.0.2.7") as client:
        client.campaigns()
    sign_in, call = transport.requests
    assert sign_in.headers["x-api-key"] == company.seeded.api_key
    assert json.loads(sign_in.content) == {
        "email": company.seeded.email,
        "password": company.seeded.password,
    }
    assert call.headers["authorization"].startswith("Bearer ")
    assert json.loads(call.headers["x-auth-context"]) == {
        "api_access": True,
        "api_code": company.seeded.api_code,
    }
    assert call.headers["x-ip"] == "192.0.2.7"
    assert call.headers["content-type"] == "application/json"


def test_sign_in_serves_all_calls_and_threads(company: Company) -> None:
    transport = ResponseTamperer()
    with company.client(transport=transport) as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: client.campaigns(), range(12)))
    assert transport.calls[AUTH] == 1


def test_token_is_renewed_before_it_expires(company: Company) -> None:
    now = 0.0
    transport = ResponseTamperer()
    token_auth = TokenAuth(company.sandbox.url, company.credentials, clock=lambda: now)
    with httpx.Client(transport=transport, auth=token_auth, base_url=company.sandbox.url) as http:
        http.get("/docs")
        now = company.sandbox.settings.access_token_seconds - auth.RENEW_BEFORE_EXPIRY - 1
        http.get("/docs")
        assert transport.calls[AUTH] == 1
        now += 2
        http.get("/docs")
    renewal = [request for request in transport.requests if request.url.path == AUTH][1]
    assert renewal.method == "GET"
    assert renewal.content == b""


def test_sign_in_repeats_when_renewal_is_refused(company: Company) -> None:
    now = 0.0
    refusal = httpx.Response(403, json={"message": "auth error"})
    transport = ResponseTamperer({AUTH: [None, refusal]})
    token_auth = TokenAuth(company.sandbox.url, company.credentials, clock=lambda: now)
    with httpx.Client(transport=transport, auth=token_auth, base_url=company.sandbox.url) as http:
        http.get("/docs")
        now = company.sandbox.settings.access_token_seconds
        assert http.get("/docs").is_success
    methods = [request.method for request in transport.requests if request.url.path == AUTH]
    assert methods == ["POST", "GET", "POST"]


def test_call_repeats_with_new_token_when_token_is_refused(company: Company) -> None:
    refusal = httpx.Response(403, json={"message": "auth error"})
    transport = ResponseTamperer({"/v1/campaign/all": [refusal]})
    with company.client(transport=transport) as client:
        assert client.campaigns()
    assert transport.calls == {AUTH: 2, "/v1/campaign/all": 2}


def test_call_fails_when_new_token_is_refused_too(hasty_company: Company) -> None:
    transport = ResponseTamperer()
    with hasty_company.client(transport=transport) as client:
        with pytest.raises(errors.AuthError, match="auth error"):
            client.campaigns()
    assert transport.calls["/v1/campaign/all"] == 2


def test_token_is_kept_when_call_is_refused_for_another_reason(company: Company) -> None:
    with company.account(api_code="wrong").get_client(
        transport=(spy := ResponseTamperer())
    ) as client:
        with pytest.raises(errors.AuthError, match="Unauthorized"):
            client.campaigns()
    assert spy.calls == {AUTH: 1, "/v1/campaign/all": 1}


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


def test_client_needs_only_url_and_credentials() -> None:
    client = NudgescribeClient("http://127.0.0.1:1", Credentials("a", "b", "c", "d"))
    with client, pytest.raises(errors.ConnectionFailed):
        client.publish("x")
