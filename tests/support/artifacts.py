"""What is shown in Prefect's UI."""

from itertools import count

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact

PAGE_SIZE = 200
"""The most that the server gives at once."""


def all_artifacts() -> list[Artifact]:
    """All artifacts of the server, which many tests share."""
    found: list[Artifact] = []
    with get_client(sync_client=True) as client:
        for page in count():
            found += client.read_artifacts(limit=PAGE_SIZE, offset=page * PAGE_SIZE)
            if len(found) < (page + 1) * PAGE_SIZE:
                return found
    raise AssertionError
