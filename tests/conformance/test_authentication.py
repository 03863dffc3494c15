import httpx
import pytest

from tests.conformance.statements import DOC, OURS, statements_of
from tests.conformance.wire import CAMPAIGN_LIST, SIGN_IN, Account, claims_of, has_shape, refusal

states = statements_of("Authentication")


def renew(account: Account, token: str) -> httpx.Response:
    return account.http.get("/v1/auth", headers={"authorization": f"Bearer {token}"})


def opens(account: Account, token: str) -> bool:
    bearer = {"authorization": f"Bearer {token}"}
    return account.call("POST", CAMPAIGN_LIST.path, {}, bearer).status_code == 200


@states("`POST /v1/auth`, header `x-api-key`, body `{email, password}`", DOC)
def test_sign_in_gives_access(account: Account) -> None:
    response = account.sign_in()
    assert response.status_code == 200
    assert opens(account, response.json()["access_token"])


@states('-> `{access_token, refresh_token, token_type: "Bearer", expires_in}`', OURS)
def test_tokens_object_has_its_names_and_types(account: Account) -> None:
    tokens = account.sign_in().json()
    assert has_shape(tokens, access_token=str, refresh_token=str, token_type=str, expires_in=int)
    assert tokens["token_type"] == "Bearer"
    claims = claims_of(tokens["access_token"])
    assert tokens["expires_in"] == claims["exp"] - claims["iat"]


@states("403 wrong credentials", DOC)
def test_sign_in_with_wrong_credentials_is_refused(account: Account) -> None:
    for wrong in ({"password": "wrong"}, {"email": "nobody@sandbox.example"}):
        assert account.sign_in(**wrong).status_code == 403


@states("`x-api-key` is needed by Authenticate", DOC)
@pytest.mark.parametrize("key", [None, "", "wrong"])
def test_sign_in_without_api_key_is_refused(account: Account, key: str | None) -> None:
    assert account.sign_in({"x-api-key": key}).status_code == 403


@states("401 missing fields", DOC)
@pytest.mark.parametrize("missing", SIGN_IN.body)
def test_sign_in_with_a_missing_field_is_refused(account: Account, missing: str) -> None:
    body = {"email": account.access.email, "password": account.access.password}
    del body[missing]
    assert account.refused(SIGN_IN.path, body)[0] == 401


@states("`GET /v1/auth` with the refresh token as bearer, no body -> the same object", DOC)
def test_renewal_with_the_refresh_token_gives_access(account: Account) -> None:
    response = renew(account, account.sign_in().json()["refresh_token"])
    assert response.status_code == 200
    renewed = response.json()
    assert has_shape(renewed, access_token=str, refresh_token=str, token_type=str, expires_in=int)
    assert renewed["token_type"] == "Bearer"
    assert opens(account, renewed["access_token"])


@states("`GET /v1/auth`: both tokens new", DOC)
def test_renewal_gives_two_new_tokens(account: Account) -> None:
    tokens = account.sign_in().json()
    renewed = renew(account, tokens["refresh_token"]).json()
    for name in ("access_token", "refresh_token"):
        assert renewed[name] != tokens[name]
    assert renew(account, renewed["refresh_token"]).status_code == 200


@states("`GET /v1/auth`: the **refresh** token as bearer, and no other", DOC)
def test_renewal_with_the_access_token_is_refused(account: Account) -> None:
    assert refusal(renew(account, account.tokens["access_token"])) == (403, "auth error")
    assert refusal(account.http.get("/v1/auth")) == (403, "auth error")
