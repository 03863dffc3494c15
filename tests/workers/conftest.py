"""Process workers of a real Prefect server, which run deployments in processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.refresh import campaign_refresh
from tests.support.deployed import Deployed, Workers, on_pool


@pytest.fixture
def workers(prefect_server: None, tmp_path: Path) -> Iterator[Workers]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    workers = Workers(temporary)
    yield workers
    workers.kill()


@pytest.fixture
def refreshes(prefect_server: None) -> Deployed:
    return on_pool(campaign_refresh)
