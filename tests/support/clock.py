"""Time that passes only when somebody sleeps."""

from threading import Lock
from typing import Any

from nudgescribe.retry import Pace


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

    def pace(self, **settings: Any) -> Pace:
        """A pace by this clock; `settings` are `Pace`'s own."""
        return Pace(clock=lambda: self.now, sleep=self.sleep, **settings)
