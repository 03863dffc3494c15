"""What a second reading of the API's pages has found; where it differs, it counts."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import inspect, select

from sandbox.api.security import account_secret
from sandbox.data.models import Base, Campaign, Job, Message, Run
from tests.conformance import DOC, OURS, lists, statements_of, stories
from tests.conformance.wire import (
    CAMPAIGN_ENDPOINTS,
    CAMPAIGN_LIST,
    CONTENT_ENDPOINTS,
    FIELD_ENDPOINTS,
    MESSAGE_ENDPOINTS,
    RERUN_ENDPOINTS,
    Account,
    Endpoint,
    refusal,
    until,
)
from tests.conftest import Company, Sandbox
from tests.support import http_server
from tests.support.chat import Chat

states = statements_of("Found in a second reading")

ALL = [*CONTENT_ENDPOINTS, *CAMPAIGN_ENDPOINTS]
QUOTA = (429, "Usage limit reached.")
PUBLISH = "/v1/messages/publish"
AUTH_ERROR, UNAUTHORIZED = (403, "auth error"), (403, "Unauthorized")
NO_ADDRESS = (400, "Invalid x-ip header.")
UUID_IN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOT_JSON = (400, "Content-Type must be application/json.")


def over(endpoints: list[Endpoint]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("endpoint", endpoints, ids=str)


def context(account: Account, **values: object) -> dict[str, str]:
    """Return the header with the account's code, and these values."""
    return {"x-auth-context": json.dumps({"api_code": account.access.api_code, **values})}


def entries(controls: Sandbox) -> list[dict[str, Any]]:
    """Return the entries of the audit log."""
    return [json.loads(line) for line in controls.settings.audit_file.read_text().splitlines()]


def audited(controls: Sandbox) -> list[dict[str, Any]]:
    """Return the entries of calls, without those of jobs, which may end at any time."""
    return [each for each in entries(controls) if not each["endpoint"].startswith("job ")]


def stored(company: Company, *kinds: type[Base]) -> list[Any]:
    """Return all rows of these kinds that belong to the company's campaign."""
    campaign_id = company.seeded.campaign_id
    columns = {Campaign: Campaign.id, Message: Message.campaign_id, Run: Run.campaign_id}
    with company.sandbox.context.store.read() as session:
        queries = [
            select(each).where(columns.get(each, Job.subject) == campaign_id) for each in kinds
        ]
        # Without an order PostgreSQL tells rows that were changed last.
        rows = (sorted(session.scalars(query), key=_identity) for query in queries)
        return [row for each in rows for row in each]


def _identity(row: Base) -> tuple[str, ...]:
    return tuple(map(str, inspect(row).identity or ()))


# ---- quota ------------------------------------------------------------------------------------


def new_rows() -> list[lists.Customer]:
    """Return four customers in two segments that no campaign has at first."""
    return stories.customers_in(stories.NEW_SEGMENTS)


def rerun(account: Account) -> dict[str, Any]:
    """Rerun onto a new group of four customers, in two new segments; return the ended run."""
    stories.initiate(account, stories.new_group(account, lists.unique_name(), new_rows()))
    return stories.settle(account)


@states("**Quota**: publish checks it on every call, also of a *Published* campaign", DOC)
def test_publish_again_is_refused_when_the_quota_is_used_up(
    fresh: Account, company: Company
) -> None:
    before = stories.View.of(fresh)
    stories.set_quota(company, 0)
    answer = fresh.call("POST", PUBLISH, {"campaign_id": fresh.access.campaign_id})
    assert refusal(answer) == QUOTA
    assert int(answer.headers["retry-after"]) > 0
    stories.set_quota(company, 1)
    for _ in range(3):  # what is published already is charged no more
        fresh.ask_campaign(PUBLISH)
    assert stories.View.of(fresh) == before


@states("**Quota** covers message generation: the run ends *Failed*, `Usage limit reached.`", DOC)
@states("**Quota**: nothing is charged for such a run, and the campaign is on its previous", OURS)
@states("**Quota**: `initiate` itself is not refused for it", DOC)
def test_generation_above_the_quota_fails_the_run(fresh: Account, company: Company) -> None:
    first = stories.View.of(fresh)
    for quota in (0, 1):
        stories.set_quota(company, quota)
        run = rerun(fresh)
        assert (run["status"], run["error"]) == ("Failed", "Usage limit reached.")
        assert (fresh.campaign(), fresh.messages()) == (first.campaign, first.messages)
    stories.set_quota(company, 2)
    assert rerun(fresh)["status"] == "Ready for review"


@states("**Quota**: each generated message is charged when the phase ends", OURS)
@states("**Quota**: each message of a run is charged once, at its first publish", OURS)
def test_messages_are_charged_when_generated_and_when_first_published(
    fresh: Account, company: Company
) -> None:
    rows = new_rows()
    rerun(fresh)
    assert company.sandbox.approve(fresh.access.campaign_id).status_code == 200
    for quota in (0, 2, 2 + len(rows) - 1):
        stories.set_quota(company, quota)
        assert fresh.refused_campaign(PUBLISH) == QUOTA
        assert fresh.campaign()["status"] == "Ready to publish"
    stories.set_quota(company, 2 + len(rows))
    stories.publish(fresh, rows)
    assert fresh.refused_campaign(PUBLISH) == QUOTA
    stories.set_quota(company, 2 + len(rows) + 1)
    for _ in range(2):
        fresh.ask_campaign(PUBLISH)


@states("**Quota**: customers added to a published run are charged at its next publish", OURS)
@states("**Quota**: a customer without a message is not charged", OURS)
def test_customers_added_to_a_published_run_are_charged(fresh: Account, company: Company) -> None:
    (group,) = fresh.groups()
    segments = [message["segment"] for message in fresh.messages()[:3]]
    none = {"plan": "never", "region": "North"}
    added = [
        {"customer_id": f"added {number}", "first_name": "Ada", **segment}
        for number, segment in enumerate([*segments, *[none] * 5])
    ]
    lists.upload(fresh, group, added)
    stories.set_quota(company, 2)
    assert fresh.refused_campaign(PUBLISH) == QUOTA
    stories.set_quota(company, 3)
    fresh.ask_campaign(PUBLISH)
    assert fresh.refused_campaign(PUBLISH) == QUOTA
    stories.set_quota(company, 4)
    fresh.ask_campaign(PUBLISH)


@states("**Quota**: a customer without a message is not charged at the first publish", OURS)
def test_only_messages_are_charged_at_the_first_publish(fresh: Account, company: Company) -> None:
    rows = stories.ready_to_publish(fresh)
    group_id = fresh.campaign()["customer_group_id"]
    (group,) = (one for one in fresh.groups() if one["customer_group_id"] == group_id)
    lists.upload(fresh, group, [{**rows[0], "customer_id": "added", "plan": "never"}])
    stories.set_quota(company, len(rows))
    stories.publish(fresh, rows)


@states("**Quota**: a rerun that generates nothing needs none", OURS)
def test_rerun_without_new_segments_needs_no_quota(fresh: Account, company: Company) -> None:
    stories.set_quota(company, 0)
    stories.ready_to_publish(fresh)


@states("**Quota**: `pages` calls are tracked as usage, per account", DOC)
def test_pages_calls_are_counted(fresh: Account, stranger: Account, company: Company) -> None:
    for _ in range(3):
        fresh.num_files()
    stranger.num_files()
    fresh.refused("/v1/messages/pages", {"campaign_id": stranger.access.campaign_id})
    page = httpx.get(company.sandbox.url).text
    _, _, ours = page.partition(f'id="account-{company.seeded.account_id}"')
    shown = re.search(r"pages counted ([0-9,]+) times", ours)
    assert shown
    assert shown[1] == "3"


@states("**Quota**: `pages` waits for nobody who writes, and its calls are counted", OURS)
def test_pages_call_waits_for_no_writer(fresh: Account, company: Company) -> None:
    with company.sandbox.context.store.write() as session:
        session.get_one(Campaign, fresh.access.campaign_id)  # takes the lock
        assert fresh.num_files() == 1


# ---- who calls --------------------------------------------------------------------------------


@states("JWT: signed and verified with a secret of the account", DOC)
@states("JWT: a token signed with another account's secret is `auth error`", OURS)
@over(ALL)
def test_token_signed_with_another_accounts_secret_is_an_auth_error(
    account: Account, stranger: Account, controls: Sandbox, endpoint: Endpoint
) -> None:
    answers: list[tuple[int, str]] = []
    for signer in (stranger, account):
        secret = account_secret(controls.settings.keys, signer.claims["account_id"])
        bearer = {"authorization": f"Bearer {jwt.encode(account.claims, secret, 'HS256')}"}
        answers.append(account.refused(endpoint.path, b"{", bearer, endpoint.verb))
    theirs, own = answers
    assert theirs == AUTH_ERROR
    assert own[0] == 400


@states("Order: a right api_code with a bad JWT is `auth error`, `api_access` or not", DOC)
@states("Order: a good JWT without `api_access: true` is `Unauthorized`", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_token_is_judged_before_api_access(account: Account, endpoint: Endpoint) -> None:
    for values in ({}, {"api_access": False}, {"api_access": None}, {"api_access": "yes"}):
        sent = context(account, **values)
        answer = account.refused(endpoint.path, endpoint.body, sent)
        assert answer == UNAUTHORIZED, values
        bad_token = {**sent, "authorization": "Bearer wrong"}
        assert account.refused(endpoint.path, endpoint.body, bad_token) == AUTH_ERROR, values


@states("Order: the api_code is judged before the JWT, whatever else is in the context", DOC)
@over(CAMPAIGN_ENDPOINTS)
def test_api_code_is_judged_first(account: Account, endpoint: Endpoint) -> None:
    for values in ({}, {"api_access": True}, {"unknown": 1}):
        sent = {**context(account, **values, api_code="wrong"), "authorization": "Bearer wrong"}
        assert account.refused(endpoint.path, endpoint.body, sent) == UNAUTHORIZED


@states("Order: context and claims count under their exact names", OURS)
def test_names_of_context_and_claims_are_exact(account: Account, controls: Sandbox) -> None:
    code = account.access.api_code
    for sent in ({"apiAccess": True, "apiCode": code}, {"apiAccess": True, "api_code": code}):
        headers = {"x-auth-context": json.dumps(sent)}
        assert account.refused(CAMPAIGN_LIST.path, {}, headers) == UNAUTHORIZED, sent
    claims = account.claims
    claims["userId"] = claims.pop("user_id")
    secret = account_secret(controls.settings.keys, claims["account_id"])
    bearer = {"authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}
    assert account.refused(CAMPAIGN_LIST.path, {}, bearer) == AUTH_ERROR


@states("Keys in `x-auth-context` that nobody knows are ignored", OURS)
def test_unknown_key_in_the_context_is_ignored(account: Account) -> None:
    sent = context(account, api_access=True, client="spreadsheet", nested={"a": [1]})
    assert account.call("POST", CAMPAIGN_LIST.path, {}, sent).status_code == 200


@states("**x-api-key**: a wrong one is 403 `Unauthorized` on every call", OURS)
@over(ALL)
def test_wrong_api_key_is_refused(account: Account, endpoint: Endpoint) -> None:
    for key in ("wrong", "", account.access.api_key[:-1]):
        answer = account.refused(endpoint.path, b"{", {"x-api-key": key}, endpoint.verb)
        assert answer == UNAUTHORIZED, key
    bad_token = {"x-api-key": "wrong", "authorization": "Bearer wrong"}
    assert account.refused(endpoint.path, b"{", bad_token, endpoint.verb) == AUTH_ERROR


@states("**x-api-key**: a wrong one is refused at renewal, too, and none is fine there", OURS)
def test_wrong_api_key_is_refused_at_renewal(account: Account) -> None:
    bearer = {"authorization": f"Bearer {account.tokens['refresh_token']}"}
    for key, status in (("wrong", 403), (None, 200), (account.access.api_key, 200)):
        answer = account.call("GET", "/v1/auth", headers={**bearer, "x-api-key": key})
        assert answer.status_code == status


@states("**x-api-key**: another account's is a wrong one", OURS)
def test_api_key_of_another_account_is_refused(account: Account, stranger: Account) -> None:
    theirs = {"x-api-key": stranger.access.api_key}
    assert account.refused(CAMPAIGN_LIST.path, {}, theirs) == UNAUTHORIZED


# ---- headers ----------------------------------------------------------------------------------


@states("**x-ip** must be an address where it is required: 400 `Invalid x-ip header.`", OURS)
@over(CAMPAIGN_ENDPOINTS)
def test_client_ip_that_is_no_address_is_refused(account: Account, endpoint: Endpoint) -> None:
    for sent in ("", "localhost", "256.1.1.1", "1.2.3.4, 5.6.7.8", "1.2.3", "::g", "fe80::1%eth0"):
        assert account.refused(endpoint.path, endpoint.body, {"x-ip": sent}) == NO_ADDRESS, sent
    bad_token = {"x-ip": "localhost", "authorization": "Bearer wrong"}
    assert account.refused(endpoint.path, endpoint.body, bad_token) == AUTH_ERROR


@states("**x-ip** must be an IPv4 or IPv6 address", OURS)
def test_client_ip_may_be_of_either_version(account: Account) -> None:
    for sent in ("192.0.2.7", "2001:DB8::7", "::ffff:192.0.2.7"):
        assert account.call("POST", CAMPAIGN_LIST.path, {}, {"x-ip": sent}).status_code == 200


def call_with(account: Account, *more: tuple[str, str]) -> httpx.Response:
    """Call with these headers beside all others, also beside one of the same name."""
    headers = [*account.headers.items(), *more]
    return account.http.post(CAMPAIGN_LIST.path, content=b"{}", headers=headers)


@states("**x-ip** and **x-api-key** that come twice and differ are refused", OURS)
def test_headers_that_come_twice_are_both_judged(account: Account, controls: Sandbox) -> None:
    for name, other, refused in (
        ("x-ip", "192.0.2.2", NO_ADDRESS),
        ("x-ip", "localhost", NO_ADDRESS),
        ("x-api-key", "wrong", UNAUTHORIZED),
    ):
        assert refusal(call_with(account, (name, other))) == refused
        assert call_with(account, (name, account.headers[name])).status_code == 200
    call_with(account, ("x-ip", "some where"))
    assert audited(controls)[-1]["ip"] == f"{account.headers['x-ip']}, some where"


@states("**x-ip** is not demanded of content endpoints, whatever it holds", OURS)
@over(CONTENT_ENDPOINTS)
def test_client_ip_of_a_content_endpoint_is_not_judged(
    account: Account, endpoint: Endpoint
) -> None:
    sent = {"x-ip": "localhost"}
    assert account.refused(endpoint.path, {}, sent, endpoint.verb)[0] == 401


@states("**x-ip**: the audit log keeps what was sent, also when refused", OURS)
def test_client_ip_is_in_the_audit_log_as_it_was_sent(account: Account, controls: Sandbox) -> None:
    for sent, status in (("2001:DB8::0007", 200), ("some where", 400)):
        answer = account.call("POST", CAMPAIGN_LIST.path, {}, {"x-ip": sent})
        entry = audited(controls)[-1]
        assert (entry["ip"], entry["status"], answer.status_code) == (sent, status, status)


@states("**Content-Type**: required and exactly `application/json` on rerun endpoints", DOC)
@states("**Content-Type**: else 400 `Content-Type must be application/json.`", OURS)
@over(RERUN_ENDPOINTS)
def test_rerun_endpoint_demands_its_content_type(account: Account, endpoint: Endpoint) -> None:
    for sent in (None, "", "text/plain", "application/problem+json", "application/jsonx"):
        headers = {"content-type": sent}
        assert account.refused(endpoint.path, endpoint.body, headers) == NOT_JSON, sent
        bad_token = {**headers, "authorization": "Bearer wrong"}
        assert account.refused(endpoint.path, endpoint.body, bad_token) == AUTH_ERROR


@states("**Content-Type**: parameters such as charset are allowed on rerun endpoints", DOC)
@over(RERUN_ENDPOINTS)
def test_content_type_may_have_parameters(account: Account, endpoint: Endpoint) -> None:
    for sent in ("application/json; charset=utf-8", "Application/JSON"):
        answer = account.refused(endpoint.path, endpoint.body, {"content-type": sent})
        assert answer == (404, "Campaign not found")


@states("**Content-Type**: messages endpoints take a JSON body without it", DOC)
@over(MESSAGE_ENDPOINTS)
def test_messages_endpoint_needs_no_content_type(account: Account, endpoint: Endpoint) -> None:
    without = {"content-type": None}
    assert account.refused(endpoint.path, endpoint.body, without) == (404, "Campaign not found.")
    assert account.refused(endpoint.path, b"{", without)[0] == 400


# ---- errors -----------------------------------------------------------------------------------


@states("**Errors**: every 500 has the JSON body", OURS)
def test_unexpected_failure_has_its_body_and_is_logged(
    fresh: Account, company: Company, caplog: pytest.LogCaptureFixture
) -> None:
    with company.sandbox.context.store.write() as session:
        session.get_one(Campaign, fresh.access.campaign_id).current_run = 99
    for path in ("/v1/campaign/all", "/v1/messages/publish"):
        body = {} if path.endswith("all") else {"campaign_id": fresh.access.campaign_id}
        answer = fresh.call("POST", path, body)
        assert (answer.status_code, [*answer.json()]) == (500, ["message"])
        error_id = UUID_IN.search(answer.json()["message"])
        assert error_id
        assert error_id[0] in caplog.text
        assert audited(company.sandbox)[-1]["status"] == 500


# ---- what is stored and recorded --------------------------------------------------------------


@states("**Storage** is isolated by account and campaign: an account's prefix first", DOC)
def test_pages_are_below_their_account_and_campaign(fresh: Account, company: Company) -> None:
    exports = Path(company.sandbox.settings.exports_url)
    pages = [each for each in exports.rglob("*.csv") if fresh.access.campaign_id in str(each)]
    below = f"{company.seeded.account_id}/{company.seeded.campaign_id}/"
    assert pages
    assert all(str(each.relative_to(exports)).startswith(below) for each in pages)
    assert httpx.URL(fresh.fetch("url")["url"]).path.startswith(f"/exports/{below}")


@states("**Recorded**: a job id on each asynchronous operation's audit line", DOC)
@states("**Recorded**: user id for every operation, background work included", DOC)
def test_job_is_on_the_lines_of_its_call_and_its_end(fresh: Account, company: Company) -> None:
    run = rerun(fresh)
    assert company.sandbox.approve(fresh.access.campaign_id).status_code == 200
    published = fresh.ask_campaign(PUBLISH)
    group = stories.new_group(fresh, lists.unique_name(), [])
    many = lists.customers(fresh, map(str, range(2000)), first_name="Ada " * 10)
    uploaded = lists.upload(fresh, group, many)
    assert uploaded["status"] == "queued"
    for job_uid, call, job in (
        (run["job_uid"], "POST /v1/campaign/rerun/initiate", "job rerun"),
        (published["job_uid"], f"POST {PUBLISH}", "job export"),
        (uploaded["job_uid"], "POST /v1/customer/check", "job upload"),
    ):
        lines = until(
            lambda wanted=job_uid: [
                each for each in entries(company.sandbox) if each["job_uid"] == wanted
            ],
            lambda found: len(found) == 2,
        )
        assert [(each["endpoint"], each["status"]) for each in lines] == [
            (call, 200),
            (job, "done"),
        ]
        assert {each["user_id"] for each in lines} == {fresh.claims["user_id"]}
        assert {each["account_id"] for each in lines} == {fresh.claims["account_id"]}


@states("**Recorded**: user id for every operation, refused ones included", DOC)
def test_user_of_a_refused_call_is_recorded(account: Account, controls: Sandbox) -> None:
    for headers in ({"x-ip": "no address"}, {"x-api-key": "wrong"}, context(account)):
        assert account.call("POST", CAMPAIGN_LIST.path, {}, headers).status_code in (400, 403)
        assert audited(controls)[-1]["user_id"] == account.claims["user_id"], headers


@states("**Recorded**: user id and endpoint of a call whose body is refused", OURS)
@over([CAMPAIGN_LIST, FIELD_ENDPOINTS[0]])
def test_user_of_a_call_with_a_refused_body_is_recorded(
    account: Account, controls: Sandbox, endpoint: Endpoint
) -> None:
    too_large = b" " * (controls.settings.largest_body + 1)
    for body, headers, status in (
        (too_large, {}, 413),
        (b"x", {"content-encoding": "gzip"}, 415),
        (too_large, {"authorization": "Bearer wrong"}, 403),
    ):
        answer = account.call(endpoint.verb, endpoint.path, body, headers)
        entry = audited(controls)[-1]
        assert (answer.status_code, entry["status"]) == (status, status)
        assert entry["endpoint"] == str(endpoint)
        assert entry["user_id"] == (None if status == 403 else account.claims["user_id"])


@states("**Recorded**: the user of a sign-in with the right password and a wrong API key", OURS)
def test_user_of_a_sign_in_with_a_wrong_key_is_recorded(
    account: Account, controls: Sandbox
) -> None:
    for headers, password, user_id in (
        ({"x-api-key": "wrong"}, account.access.password, account.claims["user_id"]),
        ({"x-api-key": None}, account.access.password, account.claims["user_id"]),
        ({}, "wrong", None),
    ):
        assert account.sign_in(headers, password=password).status_code == 403
        assert audited(controls)[-1]["user_id"] == user_id


@states(
    "**Recorded**: following a signed link is an operation; links into an object store are "
    "followed there, where this service sees nothing",
    OURS,
)
def test_followed_link_is_recorded(fresh: Account, company: Company) -> None:
    link = httpx.URL(fresh.fetch("url")["url"])
    forged = link.copy_merge_params({"signature": "0" * 64})
    for url, status, user_id in ((link, 200, fresh.claims["user_id"]), (forged, 403, None)):
        assert httpx.get(url).status_code == status
        entry = audited(company.sandbox)[-1]
        assert (entry["endpoint"], entry["status"]) == (f"GET {link.path}", status)
        assert entry["user_id"] == user_id


@states("**Recorded**: created and modified times on campaigns, messages, jobs", DOC)
def test_campaigns_messages_and_jobs_have_their_times(fresh: Account, company: Company) -> None:
    rerun(fresh)
    before = {each: stored(company, each) for each in (Campaign, Message, Job)}
    assert all(before.values())
    for each in (row for rows in before.values() for row in rows):
        assert each.created_at <= each.updated_at
    assert company.sandbox.approve(fresh.access.campaign_id).status_code == 200
    assert [each.created_at for each in stored(company, *before)] == [
        each.created_at for rows in before.values() for each in rows
    ]
    (campaign,), (earlier,) = stored(company, Campaign), before[Campaign]
    assert campaign.updated_at > earlier.updated_at
    modified = {each.id: each.updated_at for each in stored(company, Message)}
    approved = [each for each in before[Message] if each.review_status == "Pending"]
    assert approved
    assert all(modified[each.id] > each.updated_at for each in approved)


# ---- AI configuration -------------------------------------------------------------------------


def configure(company: Company, **values: object) -> None:
    url = f"{company.sandbox.url}/sandbox/campaigns/{company.seeded.campaign_id}/ai"
    assert httpx.put(url, json=values).status_code == 200


def generated(account: Account) -> set[str]:
    """Rerun; return the texts of the messages for new segments."""
    rerun(account)
    return {each["message"] for each in account.messages() if each["review_status"] == "Pending"}


@states("**AI configuration** belongs to the campaign: its template", DOC)
def test_campaign_is_written_from_its_own_template(fresh: Account, company: Company) -> None:
    configure(company, template="To {{ first_name }}, with {{ plan }}.")
    assert generated(fresh) == {"To {{ first_name }}, with student."}


@states("**AI configuration**: a template that cannot be filled in is refused", OURS)
def test_template_that_cannot_be_filled_in_is_refused(fresh: Account, company: Company) -> None:
    url = f"{company.sandbox.url}/sandbox/campaigns/{company.seeded.campaign_id}/ai"
    before = httpx.put(url, json={}).json()
    for template in ("", " \n", "Hi {{ nobody_knows }}", "Hi {{ first_name", "{% if x %}"):
        answer = httpx.put(url, json={"template": template, "prompt": "Be brief."})
        assert answer.status_code == 400, template
        assert "template" in answer.json()["message"]
    assert httpx.put(url, json={}).json() == before


@states("**AI configuration**: model, prompt, temperature, endpoint", OURS)
def test_campaign_is_written_by_its_own_model(fresh: Account, company: Company) -> None:
    with http_server.serving(Chat()) as chat:
        endpoint, own = f"{chat.url}/v1", {"model": "tall", "temperature": 0.5}
        configure(company, endpoint=endpoint, prompt="Be brief.", **own)
        assert generated(fresh) == {"Hello {{ first_name }}."}
    for body in chat.bodies:
        assert {name: body[name] for name in own} == own
        assert body["messages"][0]["content"].startswith("Be brief.")
