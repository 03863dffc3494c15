"""The services of `deployments/compose.yaml` as processes of this machine: its commands, its
environments, Debian's PostgreSQL and Redis.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    temporary_settings,
)

from tests.chaos.server import SECONDS, PrefectServer, say_the_rest
from tests.support import databases, redis

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deployments/compose.yaml"
PASSWORDS = {name: f"{name}Secret1" for name in ("POSTGRES", "REDIS", "PREFECT")}
VARIABLES = {f"{name}_PASSWORD": password for name, password in PASSWORDS.items()}
VARIABLE = re.compile(r"\$\{(\w+)(?::[?-][^}]*)?\}")


def services(text: str) -> dict[str, Any]:
    """The services, with `VARIABLES` in their places."""
    return yaml.safe_load(VARIABLE.sub(lambda found: VARIABLES.get(found[1], ""), text))["services"]


class ComposedServer(PrefectServer):
    """Prefect's API and its background services, each a process."""

    def __init__(self, home: Path, postgresql: int, redis: int) -> None:
        self._home = home
        self._services = services(FILE.read_text())
        self._databases = {"postgres:5432": postgresql, "redis:6379": redis}
        signed_in = "PREFECT_API_AUTH_STRING"
        super().__init__(home, {signed_in: self._services["setup"]["environment"][signed_in]})

    def launch(self) -> "list[subprocess.Popen[bytes]]":
        assert self.run("migrate").wait(SECONDS) == 0
        return [self.run("server"), self.run("services")]

    def run(self, name: str, **settings: str) -> "subprocess.Popen[bytes]":
        """A service's command, in no environment but its own and `settings`."""
        service = self._services[name]
        here = {"0.0.0.0": "127.0.0.1", "4200": str(self.port)}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": programs, "PREFECT_HOME": str(self._home)}
        for variable, value in service["environment"].items():
            environment[variable] = self._here(value)
        return subprocess.Popen(
            [here.get(each, each) for each in service["command"]],
            cwd=ROOT,
            env={**environment, **settings},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )

    def _here(self, text: str) -> str:
        for host, port in {**self._databases, "server:4200": self.port}.items():
            text = text.replace(host, f"127.0.0.1:{port}")
        return text.replace("/results", str(self._home / "results"))


@contextmanager
def prefect_server(home: Path) -> Iterator[ComposedServer]:
    """A server of its own, which this process knows, too."""
    there = services(FILE.read_text())
    postgresql = databases.debian_postgresql("prefect", VARIABLES["POSTGRES_PASSWORD"])
    broker = redis.serving(there["redis"]["command"], VARIABLES["REDIS_PASSWORD"])
    with postgresql as database, broker as messages:
        server = ComposedServer(home, database, messages)
        known = {
            PREFECT_API_URL: server.url,
            PREFECT_API_AUTH_STRING: server.environment["PREFECT_API_AUTH_STRING"],
            PREFECT_HOME: home,
        }
        with temporary_settings(known):
            try:
                yield server
            finally:
                say_the_rest()
                server.kill()
