"""A PostgreSQL of this machine's for Prefect's server: on SQLite its jobs get in each other's way.

Nothing is installed for it: without PostgreSQL's programs, or where they cannot be run, the server
stays on SQLite.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from time import monotonic, sleep

from deployments.environment import free_port

DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian's and Ubuntu's programs are, by version; they are on nobody's path."""
STOP_SECONDS = 30.0
USER = "postgres"
"""The database's user, and the account that a server runs as which root starts."""


@dataclass(frozen=True)
class PostgreSql:
    """A server's `programs`, the `folder` with its data and password, its `port`."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Return the address for Prefect's setting of its database."""
        password = (self.folder / "password").read_text()
        return f"postgresql+asyncpg://{USER}:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server, on new data if there are none. Raises CalledProcessError."""
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._create()
        listen = f"-p {self.port} -k '' -c listen_addresses=127.0.0.1"
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "--wait", "--log", log, "--options", listen)

    def stop(self) -> None:
        """Stop the server, whoever is connected; its files are whole even if it takes too long."""
        running = self.folder / "data" / "postmaster.pid"
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(running.read_text().split()[0]), signal.SIGINT)
        end = monotonic() + STOP_SECONDS
        while running.exists() and monotonic() < end:
            sleep(0.1)

    def _create(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(token_urlsafe(24))
        if os.geteuid() == 0:
            for each in (self.folder, secret):
                shutil.chown(each, USER, USER)
        access = ("--auth", "scram-sha-256", "--pwfile", str(secret))
        self._run("initdb", "--username", USER, *access, "--encoding", "UTF8", "--no-locale")

    def _run(self, program: str, *arguments: str) -> None:
        account = USER if os.geteuid() == 0 else None  # no server runs as root
        subprocess.run(
            [str(self.programs / program), "--pgdata", str(self.folder / "data"), *arguments],
            check=True,
            user=account,
            group=account,
            extra_groups=[] if account else None,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def postgresql(folder: Path) -> Generator[str | None]:
    """Run PostgreSQL with its data in a folder until the context ends; yield its address, None if
    it is not installed or does not start.
    """
    programs = find_programs()
    server = PostgreSql(programs, folder.resolve(), free_port()) if programs else None
    if server is None or not _starts(server):
        yield None
        return
    try:
        yield server.url
    finally:
        server.stop()


def find_programs() -> Path | None:
    """Return the folder with the programs of a PostgreSQL server, None if there is none."""
    of_debian = [path.parent for path in DEBIAN.glob("*/bin/initdb")]
    if of_debian:
        return max(of_debian, key=lambda path: int(path.parent.name.partition(".")[0]))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _starts(server: PostgreSql) -> bool:
    try:
        server.start()
    except (OSError, LookupError, subprocess.CalledProcessError):
        return False
    return True
