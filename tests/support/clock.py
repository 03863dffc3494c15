"""Time that passes only when somebody sleeps, and waiting for other processes, whose clock no test
can set.
"""

import subprocess
from collections.abc import Callable
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar

from nudgescribe.retry import PollPolicy

SECONDS = 240.0

T = TypeVar("T")


class Clock:
    """`now` moves on by what is slept, `slept` has each time. Threads may share it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._lock = Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds

    def poll_policy(self, **settings: Any) -> PollPolicy:
        """A policy by this clock; `settings` are `PollPolicy`'s own."""
        return PollPolicy(clock=lambda: self.now, sleep=self.sleep, **settings)


def until(
    look: Callable[[], T],
    process: subprocess.Popen[Any] | None = None,
    every: float = 0.1,
    seconds: float = SECONDS,
) -> T:
    """What is seen as soon as it is true; fails if that takes too long, or the process that works
    towards it ends.
    """
    end = monotonic() + seconds
    while not (seen := look()):
        assert monotonic() < end, "it took too long"
        assert process is None or process.poll() is None, "the process has ended"
        sleep(every)
    return seen
