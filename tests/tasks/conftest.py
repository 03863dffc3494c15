"""Tasks outside a flow run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect.logging import disable_run_logger

from tasks.campaigns import Refresh


@pytest.fixture(autouse=True)
def no_run() -> Iterator[None]:
    """There is no run to log to."""
    with disable_run_logger():
        yield


@pytest.fixture
def refresh() -> Refresh:
    return Refresh(id=str(uuid4()), started=datetime(2026, 11, 21, 6, 30, tzinfo=UTC))
