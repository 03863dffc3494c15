"""Looking at something until it is done: a deadline on a clock that never jumps, and backoff."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import uniform
from time import monotonic, sleep
from typing import TypeVar

from nudgescribe.errors import Passing

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How often to look. Seconds; `tolerated` counts passing errors in a row."""

    first: float = 0.5
    longest: float = 15.0
    growth: float = 1.5
    tolerated: int = 20
    clock: Callable[[], float] = monotonic
    sleep: Callable[[float], None] = sleep


def poll(look: Callable[[], T], deadline: float, pace: Pace | None = None) -> Iterator[T]:
    """Yields what `look` sees, at least once and once more after `deadline` seconds.

    The caller stops iterating when satisfied; an exhausted iterator means the time is up.
    Passing errors are overlooked until too many follow one another.
    """
    pace = pace or Pace()
    end = pace.clock() + deadline
    wait = pace.first
    failures = 0
    while True:
        last_look = pace.clock() >= end
        try:
            seen = look()
        except Passing:
            failures += 1
            if last_look or failures > pace.tolerated:
                raise
        else:
            failures = 0
            yield seen
        if last_look:
            return
        pause = uniform(wait / 2, wait)
        pace.sleep(max(0.0, min(pause, end - pace.clock())))
        wait = min(wait * pace.growth, pace.longest)
