"""CRMs behind an API that ask to wait."""

from pathlib import Path

import pytest

from blocks import HubSpotCrm
from nudgescribe.retry import RetryPolicy
from tests.blocks.crm.saas.hubspot_server import TOKEN, HubSpot
from tests.support.clock import Clock
from tests.support.http_server import Reply, as_json, serving


@pytest.mark.parametrize(
    "reply",
    [
        as_json({"status": "error", "category": "MIGRATION_IN_PROGRESS"}, 477, Retry_After="2"),
        as_json({"status": "error", "category": "LOCKED"}, 423),
        Reply(408),
        as_json({"status": "error", "category": "BUSY"}, 409, Retry_After="2"),
        as_json({"status": "error", "category": "BUSY"}, 403, Retry_After="2"),
    ],
    ids=lambda reply: str(reply.status),
)
def test_hubspot_that_asks_to_wait_is_asked_again(
    reply: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(HubSpotCrm, "retry", RetryPolicy(sleep=clock.sleep))
    server = HubSpot(lambda: clock.now)
    with serving(server):
        server.add("12", *[{"email": f"{number}@example.com"} for number in range(5)])
        server.faults["/batch/read"].append(reply)
        crm = HubSpotCrm(token=TOKEN, list_id="12", base_url=server.url, properties=["email"])
        assert crm.extract(tmp_path / "list.parquet") == 5
    assert clock.now > 0
