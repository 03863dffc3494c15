"""Fixtures that serve sandboxes on both of their databases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from sandbox.settings import Settings
from tests.conftest import Sandbox, serving
from tests.support.databases import new_database

NewDatabase = Callable[[], str | None]
NewSandbox = Callable[..., Sandbox]


def database_fixture(kinds: Sequence[str]) -> Any:
    """Return a fixture that makes empty databases of each kind and returns their URLs.

    The URL is None for SQLite in the data folder.
    """

    @pytest.fixture(scope="session", params=kinds)
    def database(request: pytest.FixtureRequest) -> NewDatabase:
        if request.param != "postgresql":
            return lambda: None
        return partial(new_database, request.getfixturevalue("postgresql_server"))

    return database


@pytest.fixture(scope="session")
def new_sandbox(
    database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewSandbox]:
    """Serves a sandbox with the given settings."""
    with ExitStack() as stack:

        def serve(**options: Any) -> Sandbox:
            data = tmp_path_factory.mktemp("sandbox")
            settings = Settings(data=data, database=database(), **options)
            return stack.enter_context(serving(settings))

        yield serve
