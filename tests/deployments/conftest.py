"""What bootstrap sets up is deleted afterwards."""

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import Automation

from blocks.saved import MAIN
from deployments import bootstrap
from deployments.server import POOL


@pytest.fixture
def server(prefect_server: None) -> Iterator[None]:
    """Delete afterwards what other tests would find."""
    yield
    with get_client(sync_client=True) as client:
        for automation in ours():
            client.delete_automation(automation.id)
        for document in client.read_block_documents():
            if document.name in (MAIN, bootstrap.NOTIFICATIONS):
                client.delete_block_document(document.id)
        client.delete_work_pool(POOL)


def ours() -> list[Automation]:
    with get_client(sync_client=True) as client:
        return [each for each in client.read_automations() if each.name.startswith("Nudgeflow: ")]
