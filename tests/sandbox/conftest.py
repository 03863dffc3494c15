"""Everything about the sandbox is tested on both of its databases."""

from collections.abc import Iterator

import pytest

from sandbox.settings import Settings
from tests.conftest import Sandbox, serving
from tests.support.databases import BOTH, new_database


@pytest.fixture(scope="session", params=BOTH)
def database(request: pytest.FixtureRequest) -> str | None:
    """The URL of an empty database, None for SQLite in the data folder."""
    if request.param == "sqlite":
        return None
    return new_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture(scope="session")
def sandbox(database: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Its reviewers are the tests."""
    data = tmp_path_factory.mktemp("sandbox")
    with serving(Settings(data=data, database=database, rows_per_file=100)) as service:
        yield service
