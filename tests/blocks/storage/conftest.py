"""An S3 store on this machine, and what blocks log."""

from collections.abc import Iterator

import pytest

from tests.blocks.crm.conftest import logged
from tests.support import stores

__all__ = ["logged"]


@pytest.fixture(scope="session")
def store() -> Iterator[stores.Store]:
    with stores.serving() as store:
        yield store
