"""Polling with backoff, up to a deadline on the monotonic clock."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import uniform
from time import monotonic, sleep
from typing import TypeVar

from nudgescribe.errors import Retryable

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """The waits between looks, in seconds, and how many errors in a row are `tolerated`."""

    first: float = 0.5
    longest: float = 15.0
    growth: float = 1.5
    tolerated: int = 20
    clock: Callable[[], float] = monotonic
    sleep: Callable[[float], None] = sleep


def poll(look: Callable[[], T], deadline: float, pace: Pace | None = None) -> Iterator[T]:
    """Yield what `look` returns, again and again; the last time when `deadline` seconds are over.

    The caller stops iterating when satisfied; an exhausted iterator means the time is up.
    Raises any error of `look`; a Retryable one only at the last look, or after `tolerated` in a
    row.
    """
    pace = pace or Pace()
    end = pace.clock() + deadline
    wait = pace.first
    failures = 0
    while True:
        last_look = pace.clock() >= end
        try:
            seen = look()
        except Retryable:
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
