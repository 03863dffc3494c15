"""The sandbox's answers on the wire, as the contract words them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from time import time
from typing import Any

import httpx
import jwt
import pytest

from sandbox import seed
from sandbox.data.models import Campaign, Group, Run, Workspace
from tests.conftest import SEEDED_CUSTOMERS, Company, Sandbox


class Caller:
    """Raw calls with all headers in order, each of which can be changed or left out."""

    def __init__(self, company: Company) -> None:
        self.company = company
        one = company.seeded
        answer = httpx.post(
            f"{company.sandbox.url}/v1/auth",
            json={"email": one.email, "password": one.password},
            headers={"x-api-key": one.api_key},
        )
        self.tokens: dict[str, Any] = answer.json()
        context = json.dumps({"api_access": True, "api_code": one.api_code})
        self.headers = {
            "authorization": f"Bearer {self.tokens['access_token']}",
            "x-auth-context": context,
            "x-ip": "192.0.2.1",
        }
        self.ids = {"campaign_id": one.campaign_id, "workspace_id": one.workspace_id}

    def post(self, path: str, body: object, **headers: str | None) -> tuple[int, str]:
        """Status and error text."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {
            name: value for name, value in {**self.headers, **names}.items() if value is not None
        }
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent["content-type"] = "application/json"
        answer = httpx.post(self.company.sandbox.url + path, content=content, headers=sent)
        return answer.status_code, answer.json().get("message", "")


@pytest.fixture
def caller(company: Company) -> Caller:
    return Caller(company)


THREE_HEADERS = [
    "/v1/campaign/all",
    "/v1/messages/publish",
    "/v1/messages/pages",
    "/v1/messages/fetch",
    "/v1/campaign/rerun/initiate",
    "/v1/campaign/rerun/history",
    "/v1/campaign/rerun/messages",
]
BEARER_ALONE = ["/v1/cpf", "/v1/cg", "/v1/customer", "/v1/customer/check", "/v1/customer/pages"]


@pytest.mark.parametrize("path", THREE_HEADERS)
def test_campaign_message_and_rerun_endpoints_demand_three_headers(
    caller: Caller, path: str
) -> None:
    wrong_code = json.dumps({"api_access": True, "api_code": "wrong"})
    no_access = caller.headers["x-auth-context"].replace("true", "false")
    assert caller.post(path, {}, x_auth_context=None) == (403, "Unauthorized")
    assert caller.post(path, {}, x_auth_context="{") == (403, "Unauthorized")
    assert caller.post(path, {}, x_ip=None) == (403, "Unauthorized")
    assert caller.post(path, {}, authorization=None) == (403, "auth error")
    # The order of the checks: api_code, then the JWT, then api_access.
    assert caller.post(path, {}, x_auth_context=wrong_code, authorization=None) == (
        403,
        "Unauthorized",
    )
    assert caller.post(path, {}, x_auth_context=no_access, authorization="Bearer x") == (
        403,
        "auth error",
    )
    assert caller.post(path, {}, x_auth_context=no_access) == (403, "Unauthorized")


@pytest.mark.parametrize("path", BEARER_ALONE)
def test_content_endpoints_demand_the_bearer_alone(caller: Caller, path: str) -> None:
    without = {"x_auth_context": None, "x_ip": None}
    assert caller.post(path, {}, **without) == (401, "Missing required fields.")
    assert caller.post(path, {}, **without, authorization="Basic x") == (403, "auth error")


@pytest.mark.parametrize("path", [*THREE_HEADERS[1:], *BEARER_ALONE])
def test_missing_fields_are_a_401_with_the_endpoints_text(caller: Caller, path: str) -> None:
    text = "Missing required fields" + ("" if "/rerun/" in path else ".")
    assert caller.post(path, {}) == (401, text)


@pytest.mark.parametrize("path", [*THREE_HEADERS, *BEARER_ALONE])
def test_malformed_json_and_wrong_types_are_a_400(caller: Caller, path: str) -> None:
    assert caller.post(path, b"{")[0] == 400
    assert caller.post(path, b'"text"')[0] == 400
    wrong = {
        "campaign_id": 7,
        "new_customer_group_id": 7,
        "file_num": "0",
        "export_type": 1,
        "workspace_id": 7,
        "customer_group_id": 7,
        "customer": 7,
        "page": "0",
        "published_from": "yesterday",
    }
    status, text = caller.post(path, wrong)
    assert status == 400
    assert "yesterday" not in text


def test_identity_comes_before_the_body(caller: Caller) -> None:
    assert caller.post("/v1/messages/pages", b"{", authorization=None) == (403, "auth error")


def forged(caller: Caller, company: Company, **changes: object) -> str:
    key = company.sandbox.settings.keys.jwt_key
    claims = jwt.decode(caller.tokens["access_token"], key, algorithms=["HS256"])
    return "Bearer " + jwt.encode({**claims, **changes}, key, algorithm="HS256")


def test_expired_forged_and_wrong_tokens_are_auth_errors(caller: Caller, company: Company) -> None:
    token = caller.tokens["access_token"]
    head, payload, signature = token.split(".")
    tokens = [
        forged(caller, company, exp=int(time()) - 1),
        forged(caller, company, account_id=7),
        f"Bearer {caller.tokens['refresh_token']}",
        f"Bearer {head}.{payload}.{signature[::-1]}",
        "Bearer " + jwt.encode({"exp": 9e9}, "another key that is long enough, too", "HS256"),
        "Bearer " + jwt.encode({"exp": 9e9}, None, "none"),
    ]
    for bearer in tokens:
        assert caller.post("/v1/campaign/all", {}, authorization=bearer) == (403, "auth error")


def test_the_refresh_token_alone_renews(caller: Caller) -> None:
    url = f"{caller.company.sandbox.url}/v1/auth"
    refresh = {"authorization": f"Bearer {caller.tokens['refresh_token']}"}
    renewed = httpx.get(url, headers=refresh).json()
    assert renewed["token_type"] == "Bearer"
    assert renewed["expires_in"] == 14 * 24 * 3600
    assert renewed["access_token"] != caller.tokens["access_token"]
    assert renewed["refresh_token"] != caller.tokens["refresh_token"]
    access = {"authorization": caller.headers["authorization"]}
    refused = httpx.get(url, headers=access)
    assert (refused.status_code, refused.json()) == (403, {"message": "auth error"})


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/messages/publish", {}, (404, "Campaign not found.")),
        ("/v1/messages/pages", {}, (404, "Campaign not found.")),
        (
            "/v1/messages/fetch",
            {"file_num": 0, "export_type": "utf8"},
            (404, "Campaign not found."),
        ),
        ("/v1/campaign/rerun/history", {}, (404, "Campaign not found")),
        ("/v1/campaign/rerun/messages", {}, (404, "Campaign not found")),
        (
            "/v1/campaign/rerun/initiate",
            {"new_customer_group_id": "x"},
            (404, "Campaign not found"),
        ),
    ],
)
def test_another_accounts_campaign_is_not_there(
    sandbox: Sandbox, caller: Caller, path: str, body: dict[str, object], answer: tuple[int, str]
) -> None:
    other = seed.seed(sandbox.context, 5).campaign_id
    for campaign in (other, "unknown"):
        assert caller.post(path, {"campaign_id": campaign, **body}) == answer


def test_another_accounts_content_is_not_there(sandbox: Sandbox, caller: Caller) -> None:
    other = seed.seed(sandbox.context, 5)
    ours = caller.ids["workspace_id"]
    for path in ("/v1/cpf", "/v1/cg"):
        assert caller.post(path, {"workspace_id": other.workspace_id}) == (401, "Invalid Workspace")
    for workspace, group, answer in (
        (other.workspace_id, other.customer_group_id, (401, "Invalid Workspace")),
        (ours, other.customer_group_id, (404, "Customer group not found")),
    ):
        body = {"workspace_id": workspace, "customer_group_id": group}
        assert caller.post("/v1/customer/pages", body) == answer
        assert caller.post("/v1/customer", {**body, "page": 0}) == answer
        assert (
            caller.post("/v1/customer/check", {**body, "customer": {"customer_id": "1"}}) == answer
        )
    initiate = {
        "campaign_id": caller.ids["campaign_id"],
        "new_customer_group_id": other.customer_group_id,
    }
    assert caller.post("/v1/campaign/rerun/initiate", initiate) == (404, "Customer group not found")


@pytest.fixture
def other_workspace(company: Company) -> tuple[str, str]:
    """A second workspace of the account and a group in it; with a campaign nobody published."""
    with company.sandbox.context.store.write() as session:
        account = session.get_one(Workspace, company.seeded.workspace_id).account_id
        workspace = Workspace(account_id=account, name="Second")
        session.add(workspace)
        session.flush()
        group = Group(workspace_id=workspace.id, name="Its group")
        draft = Campaign(
            workspace_id=workspace.id, name="Draft", status="Draft", variables=[], template=""
        )
        session.add_all([group, draft])
        session.flush()
        run = Run(
            campaign_id=draft.id,
            run_number=1,
            status="Draft",
            group_id=group.id,
            group_name=group.name,
            segment_count=0,
        )
        session.add(run)
        return workspace.id, group.id


def test_a_group_belongs_to_its_workspace(caller: Caller, other_workspace: tuple[str, str]) -> None:
    not_found = (404, "Customer group not found")
    initiate = {
        "campaign_id": caller.ids["campaign_id"],
        "new_customer_group_id": other_workspace[1],
    }
    assert caller.post("/v1/campaign/rerun/initiate", initiate) == not_found
    body = {
        "workspace_id": caller.ids["workspace_id"],
        "customer_group_id": other_workspace[1],
    }
    assert caller.post("/v1/customer/pages", body) == not_found
    upload = {**body, "customer": {"customer_id": "1"}}
    assert caller.post("/v1/customer/check", upload) == not_found


def test_a_draft_was_published_in_no_period(
    company: Company, other_workspace: tuple[str, str]
) -> None:
    with company.client() as client:
        everything = [one.name for each in client.campaigns() for one in each.campaigns]
        year_3000 = client.campaigns(published_to=datetime(3000, 1, 1, tzinfo=UTC))
    assert sorted(everything) == ["Draft", "Welcome back"]
    assert [one.name for each in year_3000 for one in each.campaigns] == ["Welcome back"]


def test_fetch_refuses_in_the_contracts_words(caller: Caller) -> None:
    base = {"campaign_id": caller.ids["campaign_id"], "file_num": 0}
    fetch = "/v1/messages/fetch"
    assert caller.post(fetch, {**base, "export_type": "xml"}) == (401, "Invalid export option.")
    assert caller.post(fetch, {**base, "export_type": "url", "run_number": 1}) == (
        400,
        "Pre-signed URL export is not available for historical runs.",
    )
    assert caller.post(fetch, {**base, "file_num": 99, "export_type": "utf8"}) == (
        404,
        "File not found.",
    )
    assert caller.post(fetch, {**base, "file_num": -1, "export_type": "utf8"})[0] == 400


def test_an_export_that_cannot_be_parsed_is_a_500(caller: Caller, company: Company) -> None:
    company.page_file().write_bytes(b"customer_id,message\r\n1\r\n")
    body = {**caller.ids, "file_num": 0, "export_type": "json"}
    del body["workspace_id"]
    assert caller.post("/v1/messages/fetch", body) == (500, "Failed to parse.")


def test_the_current_group_cannot_be_rerun_onto(caller: Caller, company: Company) -> None:
    body = {
        "campaign_id": caller.ids["campaign_id"],
        "new_customer_group_id": company.seeded.customer_group_id,
    }
    assert caller.post("/v1/campaign/rerun/initiate", body) == (
        400,
        "Current run cannot be archived",
    )


def test_a_campaign_never_rerun_shows_run_1(company: Company) -> None:
    (run,) = company.history()
    assert (run.run_number, run.status, run.comparison_summary) == (1, "Published", None)
    assert run.customer_group_name == "First customers"


def upload(caller: Caller, content: bytes, **form: str) -> tuple[int, dict[str, Any]]:
    where = {
        "workspace_id": caller.ids["workspace_id"],
        "customer_group_id": caller.company.seeded.customer_group_id,
    }
    answer = httpx.post(
        f"{caller.company.sandbox.url}/v1/customer/check",
        headers=caller.headers,
        data={**where, **form},
        files={"file": content} if content else {"other": b"x"},
    )
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"", 401, "Missing required fields."),
        (b"customer_id,first_name,x\n1,2,3\n", 400, "column 'x' is not a field of the workspace"),
        (b"customer_id,plan,region\n1,2,3\n", 400, "column 'first_name' is missing"),
        (b"customer_id,customer_id\n1,2\n", 400, "more than once: customer_id"),
        (b"customer_id,plan\n1\n", 400, "too many or too few values"),
        (b"customer_id\n\xff\n", 400, "UTF-8"),
    ],
)
def test_a_bad_file_is_refused_and_nothing_written(
    caller: Caller, company: Company, content: bytes, status: int, text: str
) -> None:
    code, answer = upload(caller, content)
    assert code == status
    assert text in answer["message"]
    with company.client() as client:
        where = company.seeded.workspace_id, company.seeded.customer_group_id
        assert client.count_customers(*where).total == SEEDED_CUSTOMERS


def test_a_form_field_of_the_wrong_kind_is_a_400(caller: Caller) -> None:
    assert upload(caller, b"customer_id\n1\n", validate_only="perhaps")[0] == 400


def test_errors_name_at_most_100_rows_and_count_all(caller: Caller) -> None:
    header = b"customer_id,first_name,plan,region\n"
    code, answer = upload(caller, header + b",,,\n" * 150)
    assert code == 200
    assert (answer["rejected"], answer["accepted"]) == (150, 0)
    assert {error["row"] for error in answer["errors"]} == set(range(1, 101))
    assert set(answer["errors"][0]) == {"row", "field", "code", "message"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"field_type": "Date"}, "14 date formats"),
        ({"field_type": "currency", "field_format": "??"}, "ISO 4217"),
        ({"field_name": "plan"}, "Field already exists."),
        ({"unique": True}, "already has its unique field"),
        ({"field_type": "text"}, "field_type"),
    ],
)
def test_a_field_that_cannot_be_is_refused(
    caller: Caller, change: dict[str, object], text: str
) -> None:
    body = {"workspace_id": caller.ids["workspace_id"], "field_name": "n", "field_type": "string"}
    answer = httpx.put(
        f"{caller.company.sandbox.url}/v1/cpf", json={**body, **change}, headers=caller.headers
    )
    assert answer.status_code == 400
    assert text in answer.json()["message"]


def test_the_unique_field_stays_and_an_unknown_one_is_not_found(
    caller: Caller, company: Company
) -> None:
    with company.client() as client:
        unique = client.list_fields(company.seeded.workspace_id)[0].field_id
    for field, status in ((unique, 400), ("unknown", 404)):
        answer = httpx.request(
            "DELETE",
            f"{company.sandbox.url}/v1/cpf",
            json={"field_id": field},
            headers=caller.headers,
        )
        assert answer.status_code == status


@pytest.fixture
def link(company: Company) -> Iterator[httpx.URL]:
    with company.client() as client:
        yield httpx.URL(client.fetch_link(company.seeded.campaign_id, 0).url)


def test_a_link_serves_a_page_and_parts_of_it(link: httpx.URL) -> None:
    page = httpx.get(link)
    assert int(page.headers["content-length"]) == len(page.content)
    assert page.headers["etag"]
    part = httpx.get(link, headers={"range": "bytes=0-10"})
    assert (part.status_code, part.content) == (206, b"customer_id")


def test_a_link_changed_or_expired_serves_nothing(link: httpx.URL) -> None:
    for changes in (
        {"signature": "0" * 64},
        {"expires": str(int(link.params["expires"]) + 1)},
        {"expires": "1"},
    ):
        refused = httpx.get(link.copy_merge_params(changes))
        assert refused.status_code == 403
    other = link.copy_with(path=link.path.replace("00000", "00001"), query=link.query)
    assert httpx.get(other).status_code == 403


def test_a_signed_page_that_is_gone_is_a_404(link: httpx.URL, company: Company) -> None:
    company.page_file().unlink()
    assert httpx.get(link).status_code == 404


def test_only_a_run_in_review_can_be_approved(company: Company) -> None:
    assert company.sandbox.approve(company.seeded.campaign_id).status_code == 400
    assert company.sandbox.approve("unknown").status_code == 404
