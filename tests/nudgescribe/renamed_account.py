"""A client and a sandbox in a process of their own, with names corrected in the one place for them.

Prints what the client has sent.
"""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nudgescribe.names import WIRE_NAMES

WIRE_NAMES.update(
    {
        "access_token": "token",
        "campaign_id": "campaign",
        "content": "csv",
        "groups": "audiences",
        "num_files": "n",
        "Campaign.name": "title",
        "Campaign.campaign_id": "key",
        "SegmentMessage.message": "text",
    }
)

from nudgescribe.errors import NotFound  # noqa: E402
from nudgescribe.retry import RetryPolicy  # noqa: E402
from sandbox import seed  # noqa: E402
from sandbox.settings import Settings  # noqa: E402
from tests.conftest import Company, serving  # noqa: E402
from tests.support.response_tamperer import ResponseTamperer  # noqa: E402


def main() -> None:
    transport, page = ResponseTamperer(), BytesIO()
    impatient = RetryPolicy(attempts=1)
    with TemporaryDirectory() as folder, serving(Settings(data=Path(folder))) as service:
        ids = seed.seed(service.context, 20)
        with Company(service, ids).client(transport=transport, retry=impatient) as client:
            (group,) = client.list_groups(ids.workspace_id)
            assert (group.customer_group_id, group.name) == (
                ids.customer_group_id,
                "First customers",
            )
            ((campaign,),) = [each.campaigns for each in client.campaigns()]
            assert (campaign.campaign_id, campaign.name) == (ids.campaign_id, "Welcome back")
            assert client.rerun_messages(ids.campaign_id)[0].message
            shown = campaign.model_dump()
            assert {"title", "key"} <= shown.keys()
            assert not {"name", "campaign_id", "campaign"} & shown.keys()
            assert group.model_dump().keys() >= {"name", "customer_group_id"}
            with pytest.raises(NotFound, match=r"404: Campaign not found\."):
                client.count_message_pages("unknown")
            assert client.count_message_pages(ids.campaign_id) == 1
            service.fault("/exports/", status=503)  # so the page comes as text in an answer
            assert client.download_page(ids.campaign_id, 0, page)
            assert page.getvalue() == client.fetch_csv(ids.campaign_id, 0).encode()
    print(*(request.content.decode() for request in transport.requests), sep="\n")


if __name__ == "__main__":
    main()
