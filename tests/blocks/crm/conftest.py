"""Where a list is extracted to, and what is logged on the way."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.crm.files import http
from nudgescribe.retry import RetryPolicy
from tests.support.clock import Clock


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Prefect's loggers included, which keep it from pytest."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "prefect")
    logger = logging.getLogger("prefect")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The waits for a busy web server, which pass at once."""
    clock = Clock()
    monkeypatch.setattr(http, "RETRY", RetryPolicy(sleep=clock.sleep))
    return clock


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "list.parquet"
