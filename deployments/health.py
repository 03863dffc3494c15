"""Health of Prefect's background services: `python -m deployments.health`, in their container.

A service that has failed stays as a process, and nothing but this tells that no event is acted on:
schedules of reviews, triggers and automations stand still.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, cast

READERS = {
    "events": ("event-persister", "reactive-triggers", "task-run-recorder"),
    "actions": ("actions",),
}
"""Redis streams of Prefect's server, and the groups of consumers that have to read them."""
PATIENCE = 60.0
"""Seconds that an event may wait to be read; one is read within a second if all is well."""


def main() -> None:
    """End with 1 and the names of those who leave an event unread."""
    import redis

    url = os.environ["PREFECT_REDIS_MESSAGING_URL"]
    try:
        with cast(Any, redis.Redis).from_url(url, socket_timeout=10) as client:
            late = [
                group
                for stream, groups in READERS.items()
                if client.exists(stream)
                for group in _find_late(client, stream, groups)
            ]
    except redis.RedisError as error:
        sys.exit(f"Redis does not tell who reads events: {type(error).__name__}.")
    if late:
        sys.exit(
            f"Events have waited for more than {PATIENCE:.0f} s to be read by {', '.join(late)}. "
            "If this stays, restart the services."
        )


def _find_late(client: Any, stream: str, groups: Iterable[str]) -> Iterator[str]:
    """Yield the groups whose oldest event that they have not been given has waited too long."""
    seconds, microseconds = client.time()
    given = {
        each["name"].decode(): each["last-delivered-id"].decode()
        for each in client.xinfo_groups(stream)
    }
    for group in groups:
        unread = client.xrange(stream, min=f"({given.get(group, '0-0')}", count=1)
        for event, _ in unread:
            written_ms = int(event.partition(b"-")[0])
            if seconds + microseconds / 1e6 - written_ms / 1000 > PATIENCE:
                yield group


if __name__ == "__main__":
    main()
