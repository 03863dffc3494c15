"""Account blocks: links and limits."""

from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from pydantic import ValidationError

from blocks.leases import LimitMissing
from tests.conftest import Company
from tests.support.exports import downloaded

LINK = "https://app.example.com/campaigns/{campaign_id}/review"


def test_campaign_link_has_the_quoted_id(company: Company) -> None:
    account = company.account(campaign_url=LINK)
    assert account.link_to("c 1/2") == "https://app.example.com/campaigns/c%201%2F2/review"
    assert company.account(campaign_url=None).link_to("c1") is None


@pytest.mark.parametrize(
    "url", ["", "https://app.example.com", LINK + "{campaign_id}", LINK + "{run}", "{}", LINK + "}"]
)
def test_campaign_url_without_one_placeholder_is_refused(company: Company, url: str) -> None:
    with pytest.raises(ValidationError, match="has {campaign_id} in it, once"):
        company.account(campaign_url=url)


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
