"""Account blocks: links and limits."""

from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from pydantic import ValidationError

from blocks import HubSpotCrm, NudgescribeAccount
from blocks.leases import LimitMissing
from blocks.saved import BlockInvalid
from blocks.secrets import SecretUnusable
from nudgescribe.errors import AuthError, ServiceUnreachable, WrongAddress
from tests.conftest import Company
from tests.support.exports import downloaded
from tests.support.response_tamperer import ResponseTamperer

SECRETS = {"email": "me", "password": "s3cret", "api_key": "s3cret", "api_code": "s3cret"}
LINK = "https://app.example.com/campaigns/{campaign_id}/review"


def test_campaign_link_has_the_quoted_id(company: Company) -> None:
    account = company.account(campaign_url=LINK)
    assert account.link_to("c 1/2") == "https://app.example.com/campaigns/c%201%2F2/review"
    assert company.account(campaign_url=None).link_to("c1") is None


@pytest.mark.parametrize(
    "url", ["", "https://app.example.com", LINK + "{campaign_id}", LINK + "{run}", "{}", LINK + "}"]
)
def test_campaign_url_without_one_placeholder_is_refused(company: Company, url: str) -> None:
    with pytest.raises(ValidationError, match="must contain {campaign_id} once"):
        company.account(campaign_url=url)


@pytest.mark.parametrize(
    ("urls", "problem"),
    [
        ({"base_url": "http://a.example"}, "base_url must begin with https://"),
        ({"base_url": "http://127.0.0.1.a.example"}, "base_url must begin with https://"),
        ({"base_url": "http://127.0.0.1@a.example"}, "a user or a password"),
        ({"base_url": "https://me:s3cret@a.example"}, "a user or a password"),
        ({"base_url": "https://a.example/nudge/v1/"}, "without /v1, .*: https://a.example/nudge"),
        ({"base_url": "https://a.example/V1/auth"}, "without /v1, .*: https://a.example"),
        ({"base_url": "https://a.example?key=s3cret"}, "the API's base URL, .*: https://a.example"),
        ({"base_url": "https://a.example/v1?key=s3cret"}, "base URL, .*: https://a.example"),
        ({"base_url": "https://a.example#s3cret"}, "the API's base URL, .*: https://a.example"),
        ({"base_url": "https://me:1?s3cret@a.example"}, "a key or a token"),
        ({"base_url": "a.example"}, "is no URL"),
        ({"base_url": " https://a.example"}, "is no URL"),
        ({"base_url": "https://a.example:s3cret"}, "is no URL"),
        ({"campaign_url": "http://a.example/{campaign_id}"}, "campaign_url must begin with https"),
        ({"campaign_url": "javascript://a/{campaign_id}"}, "is no URL"),
        ({"campaign_url": "https://s3cret@a.example/{campaign_id}"}, "a user or a password"),
        ({"campaign_url": "https://a.example/{campaign_id}?token=s3cret"}, "a key or a token"),
        ({"campaign_url": "https://a.example/{campaign_id}#access_token=s3cret"}, "key or a token"),
        ({"base_url": "https://a.example/x;token=s3cret"}, "a key or a token"),
    ],
)
def test_url_that_would_show_secrets_is_refused(urls: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        NudgescribeAccount.model_validate({**SECRETS, **urls})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "urls",
    [
        {"base_url": "http://127.0.0.1:8000"},
        {"base_url": "http://[::1]:8000"},
        {"base_url": "http://localhost", "campaign_url": "http://localhost/{campaign_id}"},
        {"base_url": "http://sandbox:7878", "allow_http": "true"},
    ],
)
def test_http_url_is_accepted_for_this_machine_or_if_allowed(urls: dict[str, str]) -> None:
    account = NudgescribeAccount.model_validate({**SECRETS, **urls})
    assert account.base_url == urls["base_url"]


def test_host_may_be_named_like_a_version() -> None:
    account = NudgescribeAccount.model_validate({**SECRETS, "base_url": "https://v1/nudge/v11"})
    assert account.base_url == "https://v1/nudge/v11"


def test_malformed_profile_key_is_refused_when_it_is_set(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "is no profile key: one has 44 characters"
    for key in ("s3cret", "s3cret".ljust(44, "x"), "s3cret".ljust(43, "x") + "=\n"):
        with pytest.raises(ValidationError, match=told) as caught:
            company.account(profile_key=key)
        assert "s3cret" not in str(caught.value)
    for none in (None, ""):
        assert company.account(profile_key=none).get_client()
    monkeypatch.setenv("PROFILE_KEY", "s3cret")
    with pytest.raises(SecretUnusable, match=f"profile_key: {told}") as unusable:
        company.account(profile_key="env:PROFILE_KEY").get_client()
    assert "s3cret" not in str(unusable.value)


def test_check_signs_in_and_says_at_once_what_is_wrong(company: Company) -> None:
    (workspace,) = company.account().check()
    assert [each.campaign_id for each in workspace.campaigns] == [company.seeded.campaign_id]
    with pytest.raises(AuthError):
        company.account(password="wrong").check()
    host = company.sandbox.url.removeprefix("http://")
    with pytest.raises(ServiceUnreachable, match=f"{host} speaks http, not https"):
        company.account(base_url=f"https://{host}").check()


@pytest.mark.parametrize("status", [301, 404, 405])
def test_address_without_the_api_is_told_at_sign_in(company: Company, status: int) -> None:
    transport = ResponseTamperer(answer=lambda request: httpx.Response(status))
    with company.account().get_client(transport=transport) as client:
        with pytest.raises(WrongAddress) as caught:
            client.campaigns()
    told = f"There is no Nudgescribe API at {company.sandbox.url}: /v1/auth answered {status}."
    assert caught.value.problem == told
    assert transport.calls == {"/v1/auth": 1}


def test_slash_at_the_end_of_base_url_is_left_out(company: Company) -> None:
    with company.account(base_url=f"{company.sandbox.url}/").get_client() as client:
        assert client.campaigns()
    assert (
        NudgescribeAccount.model_validate({**SECRETS, "base_url": "https://a/"}).base_url[-1] == "a"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": "s3cret\n"},
        {"api_code": "s3crét"},
        {"api_key": ""},
        {"client_ip": "s3cret\r\nx: y"},
        {"client_ip": ""},
        {"client_ip": "fe80::1%s3cret"},
        {"client_ip": "fe80::1%a\r\nx: s3cret"},
    ],
)
def test_value_that_fits_in_no_header_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))) as caught:
        NudgescribeAccount.model_validate({**SECRETS, **changes})
    assert "s3c" not in str(caught.value)


def test_client_ip_is_this_machines_by_default(company: Company) -> None:
    assert company.account().client_ip is None
    with company.account().get_client() as client:
        assert client.campaigns()


@pytest.mark.parametrize("url", ["http://a.example", "https://me:s3cret@a.example"])
def test_crm_url_that_would_show_secrets_is_refused(url: str) -> None:
    values = {"token": "s3cret", "list_id": "1", "properties": ["email"], "base_url": url}
    with pytest.raises(ValidationError, match="base_url") as caught:
        HubSpotCrm.model_validate(values)
    assert "s3cret" not in str(caught.value)


def test_saved_block_with_refused_url_is_named_when_it_is_loaded(prefect_server: None) -> None:
    old = NudgescribeAccount.model_validate({**SECRETS, "allow_http": True})
    old.base_url, old.allow_http = "http://me:s3cret@a.example", False
    old.save("of-before")
    with pytest.raises(BlockInvalid, match="'of-before' is not valid: base_url holds a") as caught:
        NudgescribeAccount.from_name("of-before")
    assert "s3cret" not in str(caught.value)


def test_limit_without_name_is_refused(company: Company) -> None:
    with pytest.raises(ValidationError, match="calls_limit"):
        company.account(calls_limit="")


def test_calls_and_downloads_have_separate_limits(prefect_server: None, company: Company) -> None:
    calls, downloads = (f"{kind}-{uuid4()}" for kind in ("calls", "downloads"))
    with get_client(sync_client=True) as prefect:
        prefect.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=calls, limit=1))
    campaign = company.seeded.campaign_id
    with company.account(calls_limit=calls, downloads_limit=downloads).get_client() as client:
        assert client.campaigns()
        with pytest.raises(LimitMissing, match=downloads):
            downloaded(client, campaign)
    with company.account(downloads_limit=calls).get_client() as client:
        assert downloaded(client, campaign)
