"""A Prefect server of our own, that can be killed and started again on what it has stored."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.local import free_port, wait_for

SECONDS = 120.0


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


def kill(process: "subprocess.Popen[bytes]") -> None:
    """`kill -9` of a process and of those it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def say_the_rest() -> None:
    """Sends what this process has to tell a server: without it, Python would try for a minute."""
    APILogWorker.drain_all()
    EventsWorker.drain_all()


@contextmanager
def prefect_server(home: Path) -> Iterator[PrefectServer]:
    server = PrefectServer(home)
    with temporary_settings({PREFECT_API_URL: server.url}):
        try:
            yield server
        finally:
            say_the_rest()
            server.kill()
