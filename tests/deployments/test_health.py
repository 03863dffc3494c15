"""Whether Prefect's services read events, as their container's health check asks Redis."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support import databases

pytestmark = pytest.mark.stack

PASSWORD = "secret1"
LONG_AGO = "1-0"
"""The id of an event, which begins with its milliseconds since 1970."""


@pytest.fixture
def url() -> Iterator[str]:
    command = ["redis-server", "--requirepass", PASSWORD]
    with databases.redis(command, PASSWORD) as port:
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"


def health(url: str) -> "subprocess.CompletedProcess[str]":
    given: dict[str, Any] = {"env": {**os.environ, "PREFECT_REDIS_MESSAGING_URL": url}}
    command = [sys.executable, "-m", "deployments.health"]
    return subprocess.run(command, capture_output=True, text=True, **given)


def test_services_are_healthy_until_an_event_is_left_unread(url: str) -> None:
    assert health(url).returncode == 0
    with redis.Redis.from_url(url) as client:
        for group in ("event-persister", "reactive-triggers", "task-run-recorder"):
            client.xgroup_create("events", group, mkstream=True)
        assert health(url).returncode == 0
        client.xadd("events", {"data": "x"}, id=LONG_AGO)
        client.xreadgroup("event-persister", "me", {"events": ">"})
    done = health(url)
    assert done.returncode == 1
    assert "to be read by reactive-triggers, task-run-recorder." in done.stderr
    assert PASSWORD not in done.stderr


def test_services_are_unhealthy_without_redis() -> None:
    done = health("redis://:secret1@127.0.0.1:1/0")
    assert done.returncode == 1
    assert done.stderr == "Redis does not tell who reads events: ConnectionError.\n"
