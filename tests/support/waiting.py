"""Waiting for what other processes do: they have no clock that a test could set."""

import subprocess
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

SECONDS = 240.0

T = TypeVar("T")


def until(
    look: Callable[[], T], process: subprocess.Popen[bytes] | None = None, every: float = 0.1
) -> T:
    """What is seen as soon as it is true; fails if that takes too long, or the process that works
    towards it ends.
    """
    end = monotonic() + SECONDS
    while not (seen := look()):
        assert monotonic() < end, "it took too long"
        assert process is None or process.poll() is None, "the process has ended"
        sleep(every)
    return seen
