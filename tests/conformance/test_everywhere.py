import json
from time import time
from typing import Any
from uuid import UUID

import jwt
import pytest

from tests.conformance import stories
from tests.conformance.statements import DOC, OURS, statements_of
from tests.conformance.wire import (
    CAMPAIGN_ENDPOINTS,
    CAMPAIGN_LIST,
    CONTENT_ENDPOINTS,
    MESSAGE_ENDPOINTS,
    RERUN_ENDPOINTS,
    SIGN_IN,
    UNKNOWN,
    Account,
    Endpoint,
    Object,
    claims_of,
    refusal,
    utc,
)
from tests.conftest import Company, Sandbox

states = statements_of("Everywhere")

DAY = 24 * 60 * 60
ALL = [*CONTENT_ENDPOINTS, *CAMPAIGN_ENDPOINTS]
WITH_FIELDS = [*CONTENT_ENDPOINTS, *MESSAGE_ENDPOINTS, *RERUN_ENDPOINTS]


def over(endpoints: list[Endpoint]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("endpoint", endpoints, ids=str)


def context(account: Account, **changes: object) -> str:
    values = {"api_access": True, "api_code": account.access.api_code, **changes}
    return json.dumps(values)


def leaving_out(account: Account, endpoint: Endpoint) -> list[tuple[int, str]]:
    """Return the answers to the endpoint's body without each of its fields in turn."""
    bodies = [
        {other: value for other, value in endpoint.body.items() if other != name}
        for name in endpoint.body
    ]
    return [account.refused(endpoint.path, body, verb=endpoint.verb) for body in bodies]


# ---- base URL, verbs, headers -----------------------------------------------------------------


@states("base URL + `/v1/...`: each endpoint is there, and asks who calls", DOC)
@over(ALL)
def test_endpoint_without_token_is_refused(account: Account, endpoint: Endpoint) -> None:
    without = {"authorization": None}
    assert account.refused(endpoint.path, endpoint.body, without, endpoint.verb)[0] == 403


@states("content: PUT creates, POST reads, PATCH updates, DELETE deletes, with a JSON body", DOC)
def test_content_verbs_create_read_update_delete(account: Account, group: Object) -> None:
    def names() -> list[str]:
        return [one["name"] for one in account.groups()]

    assert group["name"] in names()
    which = {"customer_group_id": group["customer_group_id"]}
    account.ask("/v1/cg", {**which, "name": f"{group['name']} renamed"}, verb="PATCH")
    assert f"{group['name']} renamed" in names()
    account.ask("/v1/cg", which, verb="DELETE")
    assert f"{group['name']} renamed" not in names()


@states("Campaign, message and rerun endpoints: POST", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_campaign_endpoint_refuses_other_verbs_than_post(
    account: Account, endpoint: Endpoint
) -> None:
    for verb in ("PUT", "PATCH", "DELETE"):
        assert account.call(verb, endpoint.path, endpoint.body).status_code in (404, 405)


@states("the first three headers are demanded on campaign, message and rerun endpoints", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_campaign_endpoint_without_one_of_three_headers_is_refused(
    account: Account, endpoint: Endpoint
) -> None:
    for header in ("authorization", "x-auth-context", "x-ip"):
        assert account.refused(endpoint.path, endpoint.body, {header: None})[0] == 403


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


@pytest.mark.sandbox
@states("`x-ip: <client ip>` goes into the audit log", DOC)
def test_client_ip_is_in_the_audit_log(account: Account, controls: Sandbox) -> None:
    account.call("POST", CAMPAIGN_LIST.path, {}, {"x-ip": "198.51.100.77"})
    entry = json.loads(controls.settings.audit_file.read_text().splitlines()[-1])
    assert entry["ip"] == "198.51.100.77"
    assert entry["account_id"] == account.claims["account_id"]


# ---- tokens and the order of the checks -------------------------------------------------------


@states("JWT: HS256; claims `user_id`, `account_id`, `role_code`", DOC)
def test_token_is_hs256_with_the_callers_claims(account: Account) -> None:
    for token in (account.tokens["access_token"], account.tokens["refresh_token"]):
        assert jwt.get_unverified_header(token)["alg"] == "HS256"
        claims = claims_of(token)
        assert all(isinstance(claims[name], str) for name in ("user_id", "account_id", "role_code"))


@states("claims `exp`, `iat`, `type` access/refresh", OURS)
def test_token_has_times_and_type(account: Account) -> None:
    for kind in ("access", "refresh"):
        claims = claims_of(account.tokens[f"{kind}_token"])
        assert claims["type"] == kind
        assert claims["iat"] <= time() < claims["exp"]


@states("Access token 14 days, refresh token 15 days by default", DOC)
def test_token_lives_14_or_15_days(account: Account) -> None:
    for kind, days in (("access", 14), ("refresh", 15)):
        claims = claims_of(account.tokens[f"{kind}_token"])
        assert claims["exp"] - claims["iat"] == days * DAY


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


def signed(account: Account, controls: Sandbox, **claims: object) -> str:
    """Return a bearer header with some claims changed, signed with the server's key."""
    key = controls.settings.keys.jwt_key
    return f"Bearer {jwt.encode({**account.claims, **claims}, key, algorithm='HS256')}"


@pytest.mark.sandbox
@states("account taken from the JWT", DOC)
def test_account_is_the_tokens(account: Account, stranger: Account, controls: Sandbox) -> None:
    bearer = signed(account, controls, account_id=stranger.claims["account_id"])
    answer = account.call("POST", CAMPAIGN_LIST.path, {}, {"authorization": bearer})
    (workspace,) = answer.json()["workspaces"]
    assert workspace["workspace_id"] == stranger.access.workspace_id


# ---- one account and another ------------------------------------------------------------------


def everything(account: Account) -> list[Any]:
    view = stories.View.of(account)
    return [account.fields(), account.groups(), account.num_files(), view]


@pytest.mark.sandbox
@states("another account's ids answer as if they did not exist", DOC)
@over(WITH_FIELDS)
def test_ids_of_another_account_answer_as_unknown_ones(
    account: Account, stranger: Account, endpoint: Endpoint
) -> None:
    theirs = {
        **stranger.ids,
        "field_id": stranger.fields()[1]["field_id"],
        "new_customer_group_id": stranger.access.customer_group_id,
    }
    before = everything(stranger)
    names = [name for name in endpoint.body if name in theirs]
    assert names
    for first in range(len(names)):
        ours = {**endpoint.body, **{name: account.ids[name] for name in names[:first]}}
        foreign = {**ours, **{name: theirs[name] for name in names[first:]}}
        answer = account.refused(endpoint.path, foreign, verb=endpoint.verb)
        unknown = {**ours, **dict.fromkeys(names[first:], UNKNOWN)}
        assert answer == account.refused(endpoint.path, unknown, verb=endpoint.verb)
        assert answer[0] in (401, 404)
    assert everything(stranger) == before


@pytest.mark.sandbox
@states("Every query is scoped to that account", DOC)
def test_list_of_campaigns_is_the_accounts_own(account: Account, stranger: Account) -> None:
    for one in (account, stranger):
        (workspace,) = one.ask(CAMPAIGN_LIST.path, {})["workspaces"]
        (campaign,) = workspace["campaigns"]
        assert workspace["workspace_id"] == one.access.workspace_id
        assert campaign["campaign_id"] == one.access.campaign_id


# ---- bodies -----------------------------------------------------------------------------------


@states('error body `{"message": "<text>"}`', OURS)
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_error_has_a_message(account: Account, status: int) -> None:
    path, body = "/v1/messages/pages", {"campaign_id": UNKNOWN}
    response = {
        400: lambda: account.call("POST", path, b"{"),
        401: lambda: account.call("POST", path, {}),
        403: lambda: account.call("POST", path, body, {"authorization": None}),
        404: lambda: account.call("POST", path, body),
    }[status]()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert isinstance(response.json()["message"], str)
    assert response.json()["message"]


@states("malformed JSON: 400", DOC)
@over([*ALL, SIGN_IN])
def test_malformed_json_is_refused(account: Account, endpoint: Endpoint) -> None:
    for body in (b"{", b'{"campaign_id": }', b"campaign_id=1"):
        assert account.refused(endpoint.path, body, verb=endpoint.verb)[0] == 400


@states("wrong types: 400", DOC)
@over([*ALL, SIGN_IN])
def test_wrong_type_is_refused(account: Account, endpoint: Endpoint) -> None:
    for name, value in {**endpoint.body, **endpoint.more}.items():
        body = {**endpoint.body, name: 7 if isinstance(value, str) else "0"}
        assert account.refused(endpoint.path, body, verb=endpoint.verb)[0] == 400, name
    assert account.refused(endpoint.path, ["text"], verb=endpoint.verb)[0] == 400


@states("missing body field: 401, `Missing required fields.` on messages endpoints", DOC)
@over(MESSAGE_ENDPOINTS)
def test_missing_field_of_messages_is_refused(account: Account, endpoint: Endpoint) -> None:
    assert {*leaving_out(account, endpoint)} == {(401, "Missing required fields.")}


@states("missing body field: 401, `Missing required fields` on rerun endpoints, no full stop", DOC)
@over(RERUN_ENDPOINTS)
def test_missing_field_of_reruns_is_refused(account: Account, endpoint: Endpoint) -> None:
    assert {*leaving_out(account, endpoint)} == {(401, "Missing required fields")}


@states("missing body field: 401, content endpoints use the first form", OURS)
@over(CONTENT_ENDPOINTS)
def test_missing_field_of_content_is_refused(account: Account, endpoint: Endpoint) -> None:
    assert {*leaving_out(account, endpoint)} == {(401, "Missing required fields.")}


@states("missing or bad auth: 403 `Unauthorized` for api_code/api_access", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_bad_auth_context_is_unauthorized(account: Account, endpoint: Endpoint) -> None:
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


@states("missing or bad auth: 403 `auth error` for the JWT", DOC)
@over(ALL)
def test_bad_token_is_an_auth_error(account: Account, endpoint: Endpoint) -> None:
    token: str = account.tokens["access_token"]
    head, payload, signature = token.split(".")
    bearers = [
        None,
        "",
        token,
        f"Basic {token}",
        "Bearer wrong",
        f"Bearer {head}.{payload}.{signature[::-1]}",
        f"Bearer {account.tokens['refresh_token']}",
        "Bearer " + jwt.encode(account.claims, "a key that the server does not sign with", "HS256"),
        "Bearer " + jwt.encode(account.claims, None, "none"),
    ]
    for bearer in bearers:
        headers = {"authorization": bearer}
        answer = account.refused(endpoint.path, endpoint.body, headers, endpoint.verb)
        assert answer == (403, "auth error")


@pytest.mark.sandbox
@states("403 `auth error` for a JWT past its `exp`", OURS)
@over(ALL)
def test_expired_token_is_an_auth_error(
    account: Account, controls: Sandbox, endpoint: Endpoint
) -> None:
    late = {"authorization": signed(account, controls, exp=int(time()) - 1)}
    answer = account.refused(endpoint.path, endpoint.body, late, endpoint.verb)
    assert answer == (403, "auth error")


@pytest.mark.sandbox
@states("quota exceeded: 429 `Usage limit reached.` with `Retry-After`", OURS)
def test_publish_above_the_quota_is_refused_with_retry_after(
    fresh: Account, company: Company
) -> None:
    stories.ready_to_publish(fresh)
    stories.set_quota(company, 0)
    response = fresh.call("POST", "/v1/messages/publish", {"campaign_id": fresh.access.campaign_id})
    assert refusal(response) == (429, "Usage limit reached.")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.sandbox
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


# ---- error texts ------------------------------------------------------------------------------


@states("messages endpoints: `Campaign not found.` (404)", DOC)
@over(MESSAGE_ENDPOINTS)
def test_messages_of_an_unknown_campaign_are_not_found(
    account: Account, endpoint: Endpoint
) -> None:
    assert account.refused(endpoint.path, endpoint.body) == (404, "Campaign not found.")


@pytest.mark.sandbox
@states("`Campaign/details not found.` (404: campaign without audience)", DOC)
def test_publish_without_audience_is_not_found(fresh: Account) -> None:
    body = {"customer_group_id": fresh.access.customer_group_id}
    fresh.ask("/v1/cg", body, verb="DELETE")
    answer = fresh.refused_campaign("/v1/messages/publish")
    assert answer == (404, "Campaign/details not found.")


@pytest.mark.sandbox
@states("`Campaign/details not found.` (404: campaign without messages)", DOC)
def test_publish_without_messages_is_not_found(fresh: Account, company: Company) -> None:
    stories.drop_messages(company)
    answer = fresh.refused_campaign("/v1/messages/publish")
    assert answer == (404, "Campaign/details not found.")


@states("`File not found.` (404)", DOC)
def test_fetch_of_an_unknown_file_is_not_found(account: Account) -> None:
    beyond = account.num_files()
    for export_type in ("utf8", "json", "url"):
        fields = {"file_num": beyond, "export_type": export_type}
        answer = account.refused_campaign("/v1/messages/fetch", **fields)
        assert answer == (404, "File not found.")


@states("`Invalid export option.` (401)", DOC)
def test_fetch_of_an_unknown_export_type_is_refused(account: Account) -> None:
    for export_type in ("xml", "UTF8", ""):
        fields = {"file_num": 0, "export_type": export_type}
        answer = account.refused_campaign("/v1/messages/fetch", **fields)
        assert answer == (401, "Invalid export option.")


@pytest.mark.sandbox
@states("`Failed to parse.` (500)", DOC)
def test_fetch_of_a_damaged_file_is_a_500(fresh: Account, company: Company) -> None:
    company.page_file().write_bytes(b"customer_id,message\r\n1\r\n")
    answer = fresh.refused_campaign("/v1/messages/fetch", file_num=0, export_type="json")
    assert answer == (500, "Failed to parse.")


@states("rerun endpoints: `Campaign not found` (404)", DOC)
@over(RERUN_ENDPOINTS)
def test_rerun_of_an_unknown_campaign_is_not_found(account: Account, endpoint: Endpoint) -> None:
    assert account.refused(endpoint.path, endpoint.body) == (404, "Campaign not found")


def initiate(account: Account, group_id: str) -> tuple[int, str]:
    path = "/v1/campaign/rerun/initiate"
    return account.refused_campaign(path, new_customer_group_id=group_id)


@states("`Customer group not found` (404)", DOC)
def test_initiate_on_an_unknown_group_is_not_found(account: Account) -> None:
    assert initiate(account, UNKNOWN) == (404, "Customer group not found")


@pytest.mark.sandbox
@states("`Only Published campaigns can be rerun` (400)", DOC)
def test_initiate_of_an_unpublished_campaign_is_refused(fresh: Account, company: Company) -> None:
    stories.put_into(company, "Ready to publish")
    group = stories.new_group(fresh, "Others", stories.customers_in(stories.NEW_SEGMENTS))
    answer = initiate(fresh, group["customer_group_id"])
    assert answer == (400, "Only Published campaigns can be rerun")


@pytest.mark.sandbox
@states("`All campaign messages must be published before initiating a rerun` (400)", DOC)
def test_initiate_with_an_unpublished_message_is_refused(fresh: Account, company: Company) -> None:
    stories.withdraw_one_message(company)
    group = stories.new_group(fresh, "Others", stories.customers_in(stories.NEW_SEGMENTS))
    answer = initiate(fresh, group["customer_group_id"])
    assert answer == (400, "All campaign messages must be published before initiating a rerun")


@states("re-running onto the current run: 400 `Current run cannot be archived`", OURS)
def test_initiate_on_the_current_group_is_refused(account: Account) -> None:
    group_id = account.campaign()["customer_group_id"]
    assert initiate(account, group_id) == (400, "Current run cannot be archived")
