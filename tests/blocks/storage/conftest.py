"""An S3 store on this machine."""

from collections.abc import Iterator

import pytest

from tests.support import stores


@pytest.fixture(scope="session")
def store() -> Iterator[stores.Store]:
    with stores.serving() as store:
        yield store
