"""A real Redis, Debian's."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from time import sleep

from redis import Redis, RedisError

from deployments.local import free_port


@contextmanager
def serving(command: Sequence[str], password: str) -> Iterator[int]:
    """Runs a Redis by this command in a folder of its own; yields its port."""
    with TemporaryDirectory() as folder:
        port = free_port()
        here = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        with subprocess.Popen([*command, *here], stdout=subprocess.DEVNULL) as process:
            try:
                _wait(port, password, process)
                yield port
            finally:
                process.kill()


def _wait(port: int, password: str, process: "subprocess.Popen[bytes]") -> None:
    with Redis(port=port, password=password) as client:
        while True:
            try:
                client.ping()
            except RedisError:
                assert process.poll() is None, "redis-server has ended"
                sleep(0.05)
            else:
                return
