"""`deployments/compose.yaml` in containers, as a person runs it.

No registry is needed: images stand on what is made from Debian's packages.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.clock import until
from tests.support.image import context

HERE = Path(__file__).parents[1] / "containers"
PROJECT = "nudgeflow-tests"
SECONDS = 1500.0
PORTS = {"server": 4200, "sandbox": 7878}
IMAGES = ("nudgeflow-worker", "nudgeflow-sandbox")
SHELLS = "/usr/bin/sh /usr/bin/dash /usr/bin/bash /usr/bin/rbash"
SOON = "PREFECT_WORKER_QUERY_SECONDS=1"
SEED = """
import sys
from pathlib import Path
from sandbox import seed
from sandbox.context import open_context
from sandbox.settings import Settings
context = open_context(Settings(data=Path("/data")))
for _ in range(int(sys.argv[1])):
    print(seed.seed(context, int(sys.argv[2])).model_dump_json())
context.store.close()
"""


def engine() -> dict[str, str]:
    """The environment in which `docker` is podman, as this machine can have it."""
    real = shutil.which("podman")
    assert real, "podman is missing; the README says what to install."
    programs = (HERE / "bin", Path(sys.executable).parent, os.environ["PATH"])
    return {
        **os.environ,
        "PATH": os.pathsep.join(map(str, programs)),
        "REAL_PODMAN": real,
        "CONTAINERS_CONF": str(HERE / "containers.conf"),
        "COMPOSE_PROJECT_NAME": PROJECT,
    }


@dataclass(frozen=True)
class Stack:
    """The project in a folder of its own, and what is called by a service's name."""

    folder: Path
    lake: Path

    @cached_property
    def environment(self) -> dict[str, str]:
        return engine()

    def run(self, command: str) -> str:
        """What a command of the documents prints; it must succeed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            timeout=SECONDS,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    def podman(self, *arguments: str, **options: Any) -> str:
        done = subprocess.run(
            [self.environment["REAL_PODMAN"], *arguments],
            env=self.environment,
            capture_output=True,
            timeout=SECONDS,
            text=True,
            **options,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def inspect(self, service: str, template: str) -> str:
        return self.podman("inspect", "--format", template, name_of(service))

    def inside(self, service: str, *command: str, **options: Any) -> str:
        """What a command prints in a service's container."""
        return self.podman("exec", "-i", name_of(service), *command, **options)

    def is_healthy(self, service: str) -> bool:
        return self._succeeds("healthcheck", "run", name_of(service))

    def reaches(self, service: str, other: str) -> bool:
        """Whether one can open a connection to the other."""
        look = f"import socket; socket.create_connection(('{other}', {PORTS[other]}), 2)"
        return self._succeeds("exec", name_of(service), "python", "-c", look)

    def _succeeds(self, *arguments: str) -> bool:
        command = [self.environment["REAL_PODMAN"], *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=SECONDS)
        return done.returncode == 0

    def kill(self, service: str) -> None:
        """`kill -9` of all that runs in a container, as the kernel does it when memory is short."""
        before = self.inspect(service, "{{.State.Pid}}")
        os.kill(int(before), signal.SIGKILL)
        until(lambda: self.inspect(service, "{{.State.Pid}}") != before)
        self._is_back(service)

    def stop(self, service: str) -> None:
        self.run(f"docker compose --profile sandbox stop {service}")
        assert self.inspect(service, "{{.State.ExitCode}}") in ("0", "143", "130"), service

    def start(self, service: str) -> None:
        self.run(f"docker compose --profile sandbox start {service}")
        self._is_back(service)

    def _is_back(self, service: str) -> None:
        """Its restart policy starts it anew; what Docker does at once, podman does too."""
        until(lambda: self.inspect(service, "{{.State.Running}}") == "true")
        until(lambda: self.is_healthy(service))

    def volume(self, name: str) -> Path:
        """Where its files are on this machine."""
        there = ("volume", "inspect", "--format", "{{.Mountpoint}}", f"{PROJECT}_{name}")
        return Path(self.podman(*there))

    def variables(self, file: str) -> dict[str, str]:
        lines = (self.folder / file).read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    @contextmanager
    def another_worker(self, *options: str) -> Iterator[None]:
        """A worker as that of compose.yaml, of the same host name, by options of `podman run`."""
        variables = json.loads(self.inspect("worker", "{{json .Config.Env}}"))
        volumes = [f"--volume={PROJECT}_{name}" for name in ("lake:/lake", "lists:/lists")]
        name = f"{PROJECT}_another"
        self.podman(
            *("run", "--detach", "--pull=never", "--read-only", "--name", name),
            *("--hostname", self.inspect("worker", "{{.Config.Hostname}}")),
            *("--network", f"{PROJECT}_default", *volumes, f"--volume={PROJECT}_temporary:/tmp"),
            *(f"--env={each}" for each in variables),
            *options,
            "nudgeflow-worker:local",
            *json.loads(self.inspect("worker", "{{json .Config.Cmd}}")),
        )
        try:
            yield
        finally:
            self.podman("rm", "--force", "--time", "60", name)

    @contextmanager
    def cut(self, service: str, other: str) -> Iterator[None]:
        """Whatever one sends to the other is lost, without a word."""
        address = self.inspect(other, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        pid = self.inspect(service, "{{.State.Pid}}")
        rule = ["OUTPUT", "--destination", address, "--jump", "DROP"]
        inside = ["nsenter", "--target", pid, "--net", "iptables"]
        subprocess.run([*inside, "--append", *rule], check=True)
        try:
            yield
        finally:
            subprocess.run([*inside, "--delete", *rule], check=True)


def name_of(service: str) -> str:
    return f"{PROJECT}_{service}_1"


@contextmanager
def stack(folder: Path) -> Iterator[Stack]:
    """The project's files in `folder`, images to stand on, and room of its own for the lake.

    Containers and volumes of an earlier one are gone, and so are these at the end.
    """
    lake = folder / "lake"
    lake.mkdir()
    context(folder / "project")
    one = Stack(folder / "project/deployments", lake)
    subprocess.run([HERE / "images/make"], env=one.environment, check=True, timeout=SECONDS)
    _remove(one)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", lake], check=True)
    try:
        # A bind mount keeps its owner, where a volume takes the image's.
        os.chown(lake, 1001, 1001)
        volume = f"{PROJECT}_lake"
        labels = ("--label", f"io.podman.compose.project={PROJECT}")
        where = ("--opt", "type=none", "--opt", "o=bind", "--opt", f"device={lake}")
        one.podman("volume", "create", *labels, *where, volume)
        yield one
    finally:
        _remove(one)
        subprocess.run(["umount", "--lazy", lake], check=True)
        for image in IMAGES:
            one.podman("tag", f"{image}:built", f"{image}:local")


def take_shells_away(one: Stack) -> None:
    """Without shells, and with workers that look for work every second; `built` is as built."""
    for image in IMAGES:
        one.podman("tag", f"{image}:local", f"{image}:built")
        lines = f"FROM {image}:built\nUSER root\nRUN rm {SHELLS}\nUSER 1001:1001\nENV {SOON}\n"
        build = ("build", "--isolation", "chroot", "--tag", f"{image}:local", "--file", "-")
        one.podman(*build, one.folder.as_posix(), input=lines)


def _remove(one: Stack) -> None:
    one.run(
        "export POSTGRES_PASSWORD=x REDIS_PASSWORD=x PREFECT_PASSWORD=x\n"
        "docker compose --profile sandbox down --volumes"
    )
