"""Prefect servers that can be killed and started again on what they have stored: a plain one, and
that of `deployments/compose.yaml` with its commands, its environments, Debian's PostgreSQL and
Redis.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    temporary_settings,
)

from deployments.environment import free_port
from deployments.local import wait_for
from tests.support import databases

SECONDS = 120.0
ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deployments/compose.yaml"
VARIABLES = {f"{name}_PASSWORD": f"{name}Secret1" for name in ("POSTGRES", "REDIS", "PREFECT")}
VARIABLE = re.compile(r"\$\{(\w+)(?::[?-][^}]*)?\}")


def services(text: str) -> dict[str, Any]:
    """The services of a compose file, with `VARIABLES` in their places."""
    return yaml.safe_load(VARIABLE.sub(lambda found: VARIABLES.get(found[1], ""), text))["services"]


class PrefectServer:
    """Stores in `home`. Services are left out: none is needed to run flows, and recording each task
    run takes as long as the flow itself.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.environment = {
            **os.environ,
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            **(settings or {}),
        }
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self.processes = self.launch()
        try:
            wait_for(f"{self.url}/health", self.processes[0], SECONDS)
        except SystemExit:
            self.kill()
            raise

    def launch(self) -> "list[subprocess.Popen[bytes]]":
        """Its processes; the first one answers."""
        command = ["server", "start", "--port", str(self.port), "--no-ui", "--no-services"]
        return [self.prefect(*command)]

    def kill(self) -> None:
        """`kill -9` of all its processes."""
        for process in self.processes:
            kill(process)

    def prefect(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """A command that knows this server, in a process group of its own."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        return subprocess.Popen(
            command, env=self.environment, start_new_session=True, stdout=subprocess.DEVNULL
        )


class ComposedServer(PrefectServer):
    """Prefect's API and its background services, each a process."""

    def __init__(self, home: Path, postgresql: int, redis: int) -> None:
        self._home = home
        self._services = services(COMPOSE.read_text())
        self._databases = {"postgres:5432": postgresql, "redis:6379": redis}
        signed_in = "PREFECT_API_AUTH_STRING"
        super().__init__(home, {signed_in: self._services["bootstrap"]["environment"][signed_in]})

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
        return text


def kill(process: "subprocess.Popen[bytes]") -> None:
    """`kill -9` of a process and of those it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def impatient(settings: Mapping[Any, Any]) -> Iterator[None]:
    """Prefect's client with these settings. What SQLite refuses while something else is recorded,
    it asks again after 2 s, then longer; here it waits a tenth of that, and more often.

    Task runs tell no events. Nobody here asks for them, ninety for a refresh, and they are a third
    of what the server has to do for it.
    """
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 8, **settings}),
        pytest.MonkeyPatch.context() as patched,
    ):
        soon = SimpleNamespace(sleep=lambda seconds: sleep(seconds / 10))
        patched.setattr("prefect.client.base.time", soon)
        told = "prefect.task_engine.emit_task_run_state_change_event"
        patched.setattr(told, lambda **_: None)
        yield


@contextmanager
def known(server: PrefectServer) -> Iterator[None]:
    """This process knows the server."""
    there: dict[Any, Any] = {
        PREFECT_API_URL: server.url,
        PREFECT_API_AUTH_STRING: server.environment.get("PREFECT_API_AUTH_STRING"),
        PREFECT_HOME: Path(server.environment["PREFECT_HOME"]),
    }
    with impatient(there):
        try:
            yield
        finally:
            # What this process has to tell it: without it, Python would try for a minute.
            APILogWorker.drain_all()
            EventsWorker.drain_all()


@contextmanager
def started(server: PrefectServer) -> Iterator[None]:
    """The server is known, and killed at the end."""
    try:
        with known(server):
            yield
    finally:
        server.kill()


@contextmanager
def plain(home: Path) -> Iterator[PrefectServer]:
    server = PrefectServer(home)
    with started(server):
        yield server


@contextmanager
def composed(home: Path) -> Iterator[ComposedServer]:
    """On SQLite events are lost now and then, when its file is locked, and it has no room for what
    many processes ask.
    """
    redis = services(COMPOSE.read_text())["redis"]["command"]
    postgresql = databases.debian_postgresql("prefect", VARIABLES["POSTGRES_PASSWORD"])
    broker = databases.redis(redis, VARIABLES["REDIS_PASSWORD"])
    with postgresql as database, broker as messages:
        server = ComposedServer(home, database, messages)
        with started(server):
            yield server
