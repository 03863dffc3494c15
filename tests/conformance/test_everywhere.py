"""What holds for every endpoint: headers, tokens, signing in, accounts and bodies."""

import json
from itertools import chain, combinations
from time import time
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest

from sandbox.api.security import account_secret
from tests.conformance import DOC, OURS, statements_of, stories
from tests.conformance.wire import (
    CAMPAIGN_ENDPOINTS,
    CAMPAIGN_LIST,
    CONTENT_ENDPOINTS,
    FETCHES,
    MESSAGE_ENDPOINTS,
    RERUN_ENDPOINTS,
    SIGN_IN,
    UNKNOWN,
    Account,
    Endpoint,
    claims_of,
    has_shape,
    refusal,
    utc,
)
from tests.conftest import Sandbox

states, states_of_signing_in = statements_of("Everywhere"), statements_of("Authentication")

DAY = 24 * 60 * 60
ALL = [*CONTENT_ENDPOINTS, *CAMPAIGN_ENDPOINTS]
WITH_FIELDS = [*CONTENT_ENDPOINTS, *MESSAGE_ENDPOINTS, *RERUN_ENDPOINTS]


def over(endpoints: list[Endpoint]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("endpoint", endpoints, ids=str)


def context(account: Account, **changes: object) -> str:
    values = {"api_access": True, "api_code": account.access.api_code, **changes}
    return json.dumps(values)


# ---- verbs and headers ------------------------------------------------------------------------


@states("Campaign, message and rerun endpoints: POST", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_campaign_endpoint_refuses_other_verbs_than_post(
    account: Account, endpoint: Endpoint
) -> None:
    for verb in ("PUT", "PATCH", "DELETE"):
        assert account.call(verb, endpoint.path, endpoint.body).status_code in (404, 405)


@states("the bearer alone is demanded on content endpoints", DOC)
@over(CONTENT_ENDPOINTS)
def test_content_endpoint_needs_the_bearer_alone(account: Account, endpoint: Endpoint) -> None:
    others: dict[str, str | None] = {"x-auth-context": None, "x-ip": None, "x-api-key": None}
    assert account.refused(endpoint.path, {}, others, endpoint.verb)[0] == 401
    no_bearer = {**others, "authorization": None}
    assert account.refused(endpoint.path, {}, no_bearer, endpoint.verb)[0] == 403


@states("`x-api-key` is optional", DOC)
def test_api_key_is_optional(account: Account) -> None:
    without = {"x-api-key": None}
    assert account.call("POST", CAMPAIGN_LIST.path, {}, without).status_code == 200
    workspace = {"workspace_id": account.access.workspace_id}
    assert account.call("POST", "/v1/cpf", workspace, without).status_code == 200


@states("`x-ip: <client ip>` goes into the audit log", DOC)
def test_client_ip_is_in_the_audit_log(account: Account, controls: Sandbox) -> None:
    account.call("POST", CAMPAIGN_LIST.path, {}, {"x-ip": "198.51.100.77"})
    entry = json.loads(controls.settings.audit_file.read_text().splitlines()[-1])
    assert entry["ip"] == "198.51.100.77"
    assert entry["account_id"] == account.claims["account_id"]


@states("the first three headers are demanded on campaign, message and rerun endpoints", DOC)
@states("missing or bad auth: 403 `Unauthorized` for api_code/api_access", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_campaign_endpoint_demands_three_headers_and_its_context(
    account: Account, endpoint: Endpoint
) -> None:
    for header in ("authorization", "x-auth-context", "x-ip"):
        assert account.refused(endpoint.path, endpoint.body, {header: None})[0] == 403
    contexts = [
        None,
        "",
        "{",
        "{}",
        json.dumps({"api_access": True}),
        json.dumps({"api_code": account.access.api_code}),
        context(account, api_code="wrong"),
        context(account, api_access=False),
    ]
    for sent in contexts:
        answer = account.refused(endpoint.path, endpoint.body, {"x-auth-context": sent})
        assert answer == (403, "Unauthorized"), sent


@states("check order: api_code matches the server's; JWT signature; `api_access` is true", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_authentication_checks_are_in_order(account: Account, endpoint: Endpoint) -> None:
    wrong_code, no_access = context(account, api_code="wrong"), context(account, api_access=False)
    for sent, bearer, expected in (
        (wrong_code, "Bearer wrong", "Unauthorized"),
        (no_access, "Bearer wrong", "auth error"),
        (no_access, account.headers["authorization"], "Unauthorized"),
    ):
        headers = {"x-auth-context": sent, "authorization": bearer}
        assert account.refused(endpoint.path, endpoint.body, headers) == (403, expected)


# ---- signing in and tokens --------------------------------------------------------------------


def renew(account: Account, token: str) -> httpx.Response:
    return account.http.get("/v1/auth", headers={"authorization": f"Bearer {token}"})


def check_tokens(account: Account, response: httpx.Response) -> None:
    """Check the object of tokens, and that the access token is one."""
    assert response.status_code == 200
    tokens = response.json()
    assert has_shape(tokens, access_token=str, refresh_token=str, token_type=str, expires_in=int)
    assert tokens["token_type"] == "Bearer"
    claims = claims_of(tokens["access_token"])
    assert tokens["expires_in"] == claims["exp"] - claims["iat"]
    bearer = {"authorization": f"Bearer {tokens['access_token']}"}
    assert account.call("POST", CAMPAIGN_LIST.path, {}, bearer).status_code == 200


@states_of_signing_in("`POST /v1/auth`, header `x-api-key`, body `{email, password}`", DOC)
@states_of_signing_in('-> `{access_token, refresh_token, token_type: "Bearer", expires_in}`', OURS)
def test_sign_in_gives_access(account: Account) -> None:
    check_tokens(account, account.sign_in())


@states_of_signing_in("403 wrong credentials", DOC)
@states_of_signing_in("`x-api-key` is needed by Authenticate", DOC)
def test_sign_in_with_wrong_credentials_is_refused(account: Account) -> None:
    for wrong in ({"password": "wrong"}, {"email": "nobody@sandbox.example"}):
        assert account.sign_in(**wrong).status_code == 403
    for key in (None, "", "wrong"):
        assert account.sign_in({"x-api-key": key}).status_code == 403


@states_of_signing_in("401 missing fields", DOC)
def test_sign_in_with_a_missing_field_is_refused(account: Account) -> None:
    for body in ({"email": account.access.email}, {"password": account.access.password}):
        assert account.refused(SIGN_IN.path, body)[0] == 401


@states_of_signing_in(
    "`GET /v1/auth` with the refresh token as bearer, no body -> the same object", DOC
)
@states_of_signing_in("`GET /v1/auth`: both tokens new", DOC)
def test_renewal_gives_two_new_tokens(account: Account) -> None:
    tokens = account.sign_in().json()
    renewed = renew(account, tokens["refresh_token"])
    check_tokens(account, renewed)
    for name in ("access_token", "refresh_token"):
        assert renewed.json()[name] != tokens[name]
    assert renew(account, renewed.json()["refresh_token"]).status_code == 200


@states_of_signing_in("`GET /v1/auth`: the **refresh** token as bearer, and no other", DOC)
def test_renewal_with_the_access_token_is_refused(account: Account) -> None:
    assert refusal(renew(account, account.tokens["access_token"])) == (403, "auth error")
    assert refusal(account.http.get("/v1/auth")) == (403, "auth error")


@states("JWT: HS256; claims `user_id`, `account_id`, `role_code`", DOC)
@states("claims `exp`, `iat`, `type` access/refresh", OURS)
@states("Access token 14 days, refresh token 15 days by default", DOC)
def test_token_is_hs256_with_caller_times_and_type(account: Account) -> None:
    for kind, days in (("access", 14), ("refresh", 15)):
        token = account.tokens[f"{kind}_token"]
        assert jwt.get_unverified_header(token)["alg"] == "HS256"
        claims = claims_of(token)
        assert has_shape(claims, user_id=str, account_id=str, role_code=str)
        assert claims["type"] == kind
        assert claims["iat"] <= time() < claims["exp"]
        assert claims["exp"] - claims["iat"] == days * DAY


@states("base URL + `/v1/...`: each endpoint is there, and asks who calls", DOC)
@states("missing or bad auth: 403 `auth error` for the JWT", DOC)
@over(ALL)
def test_bad_token_is_an_auth_error(account: Account, endpoint: Endpoint) -> None:
    token: str = account.tokens["access_token"]
    head, payload, signature = token.split(".")
    bearers: list[str | bytes | None] = [
        None,
        "",
        token,
        f"Basic {token}",
        "Token wrong",
        "Bearer",
        "bearer",
        "Bearer wrong",
        "Bearer \u00e9.\u00ff.x".encode("latin-1"),
        f"Bearer {head}.{payload}.{signature[::-1]}",
        f"Bearer {account.tokens['refresh_token']}",
        "Bearer " + jwt.encode(account.claims, "a key that the server does not sign with", "HS256"),
        "Bearer " + jwt.encode(account.claims, None, "none"),
    ]
    for bearer in bearers:
        headers = {"authorization": bearer}
        answer = account.refused(endpoint.path, endpoint.body, headers, endpoint.verb)
        assert answer == (403, "auth error"), bearer


def signed(account: Account, controls: Sandbox, **claims: object) -> dict[str, str]:
    """Return the header with a token of changed claims, signed as the service signs its own."""
    changed = {**account.claims, **claims}
    secret = account_secret(controls.settings.keys, changed["account_id"])
    token = jwt.encode(changed, secret, algorithm="HS256")
    return {"authorization": f"Bearer {token}"}


@states("403 `auth error` for a JWT past its `exp`", OURS)
@over(ALL)
def test_expired_token_is_an_auth_error(
    account: Account, controls: Sandbox, endpoint: Endpoint
) -> None:
    late = signed(account, controls, exp=int(time()) - 1)
    answer = account.refused(endpoint.path, endpoint.body, late, endpoint.verb)
    assert answer == (403, "auth error")


# ---- one account and another ------------------------------------------------------------------


@states("account taken from the JWT", DOC)
@states("Every query is scoped to that account", DOC)
def test_list_of_campaigns_is_of_the_tokens_account(
    account: Account, stranger: Account, controls: Sandbox
) -> None:
    token = signed(account, controls, account_id=stranger.claims["account_id"])
    theirs = {**token, "x-api-key": None}
    for one, headers in ((account, None), (stranger, None), (stranger, theirs)):
        caller = account if headers else one
        answer = caller.call("POST", CAMPAIGN_LIST.path, {}, headers)
        (workspace,) = answer.json()["workspaces"]
        (campaign,) = workspace["campaigns"]
        assert workspace["workspace_id"] == one.access.workspace_id
        assert campaign["campaign_id"] == one.access.campaign_id


def everything(account: Account) -> list[Any]:
    view = stories.View.of(account)
    return [account.fields(), account.groups(), account.num_files(), view]


@states("another account's ids answer as if they did not exist", DOC)
@over([*WITH_FIELDS, *FETCHES[1:]])
def test_ids_of_another_account_answer_as_unknown_ones(
    account: Account, stranger: Account, endpoint: Endpoint
) -> None:
    theirs = {
        **stranger.ids,
        "field_id": stranger.fields()[1]["field_id"],
        "new_customer_group_id": stranger.access.customer_group_id,
    }
    before = everything(account), everything(stranger)
    names = [name for name in endpoint.body if name in theirs]
    assert names
    sizes = range(1, len(names) + 1)
    for chosen in chain.from_iterable(combinations(names, size) for size in sizes):
        ours = {**endpoint.body, **{name: account.ids.get(name, UNKNOWN) for name in names}}
        foreign = {**ours, **{name: theirs[name] for name in chosen}}
        answer = account.refused(endpoint.path, foreign, verb=endpoint.verb)
        unknown = {**ours, **dict.fromkeys(chosen, UNKNOWN)}
        assert answer == account.refused(endpoint.path, unknown, verb=endpoint.verb)
        assert answer[0] in (401, 404)
    assert (everything(account), everything(stranger)) == before


# ---- bodies -----------------------------------------------------------------------------------


@states('error body `{"message": "<text>"}`', OURS)
def test_error_has_a_message(account: Account) -> None:
    path, body = "/v1/messages/pages", {"campaign_id": UNKNOWN}
    for status, response in (
        (400, account.call("POST", path, b"{")),
        (401, account.call("POST", path, {})),
        (403, account.call("POST", path, body, {"authorization": None})),
        (404, account.call("POST", path, body)),
    ):
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        assert isinstance(response.json()["message"], str)
        assert response.json()["message"]


@states("malformed JSON: 400", DOC)
@states("wrong types: 400", DOC)
@over([*ALL, SIGN_IN])
def test_malformed_json_and_wrong_type_are_refused(account: Account, endpoint: Endpoint) -> None:
    bodies: list[object] = [b"{", b'{"campaign_id": }', b"campaign_id=1", ["text"]]
    for name, value in {**endpoint.body, **endpoint.more}.items():
        bodies.append({**endpoint.body, name: 7 if isinstance(value, str) else "0"})
    for body in bodies:
        assert account.refused(endpoint.path, body, verb=endpoint.verb)[0] == 400, body


@states("missing body field: 401, `Missing required fields.` on messages endpoints", DOC)
@states("missing body field: 401, `Missing required fields` on rerun endpoints, no full stop", DOC)
@states("missing body field: 401, content endpoints use the first form", OURS)
@over(WITH_FIELDS)
def test_missing_field_is_refused(account: Account, endpoint: Endpoint) -> None:
    stop = "" if endpoint in RERUN_ENDPOINTS else "."
    for missing in endpoint.body:
        body = {name: value for name, value in endpoint.body.items() if name != missing}
        answer = account.refused(endpoint.path, body, verb=endpoint.verb)
        assert answer == (401, f"Missing required fields{stop}"), missing


@states("messages endpoints: `Campaign not found.` (404)", DOC)
@states("rerun endpoints: `Campaign not found` (404)", DOC)
@over([*MESSAGE_ENDPOINTS, *RERUN_ENDPOINTS])
def test_unknown_campaign_is_not_found(account: Account, endpoint: Endpoint) -> None:
    stop = "" if endpoint in RERUN_ENDPOINTS else "."
    answer = account.refused(endpoint.path, endpoint.body)
    assert answer == (404, f"Campaign not found{stop}")


@states("ids: opaque strings (UUID in the sandbox)", OURS)
def test_id_is_a_uuid(story: stories.Story) -> None:
    account = story.account
    ids = [
        *account.ids.values(),
        *(field["field_id"] for field in account.fields()),
        *(group["customer_group_id"] for group in account.groups()),
        *(message["message_id"] for message in story.last.messages),
        account.ask_campaign("/v1/messages/publish")["job_uid"],
        story.started["run"]["job_uid"],
    ]
    assert [str(UUID(one)) for one in ids] == ids


@states("times: ISO 8601 UTC", OURS)
def test_time_is_utc(account: Account) -> None:
    group, campaign, run = account.groups()[0], account.campaign(), account.runs()[-1]
    times = [
        group["created_at"],
        group["updated_at"],
        campaign["published_at"],
        run["started_at"],
        account.fetch("url")["expires_at"],
    ]
    assert all(utc(one).year > 2000 for one in times)
