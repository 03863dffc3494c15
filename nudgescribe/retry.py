"""How often and how long calls are repeated.

`RetryPolicy` is for one call: reads are repeated, changes only when the service says when. `poll`
looks again and again until something has happened, up to a deadline on the monotonic clock.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import uniform
from time import monotonic, sleep
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from nudgescribe.errors import QuotaExceeded, Retryable

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call is made, with exponential waits and jitter between, all in seconds.

    The wait a service asks for is kept, unless it is longer than `patience`: then its error is
    raised at once.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0
    patience: float = 300.0
    sleep: Callable[[float], None] = sleep

    def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; repeat it while its error is Retryable, then raise that."""
        return self._while(self._is_worth_it, call)

    def once(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, where `call` changes something.

        It is repeated only after a 429 that says when: that call has changed nothing. After any
        other failure it may have.
        """
        return self._while(self._was_put_off, call)

    def _while(self, worth_it: Callable[[BaseException], bool], call: Callable[[], T]) -> T:
        retrying = Retrying(
            retry=retry_if_exception(worth_it),
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(call)

    def _is_worth_it(self, error: BaseException) -> bool:
        return isinstance(error, Retryable) and (error.retry_after or 0) <= self.patience

    def _was_put_off(self, error: BaseException) -> bool:
        when = error.retry_after if isinstance(error, QuotaExceeded) else None
        return when is not None and when <= self.patience

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Retryable) else None
        backoff = wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait)
        return max(asked or 0.0, backoff(state))


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
    Raises any error of `look`; a Retryable one only after `tolerated` in a row, or at the last look
    if nothing was seen: a caller who has seen something tells what that was.
    """
    pace = pace or Pace()
    end = pace.clock() + deadline
    wait = pace.first
    failures, has_seen = 0, False
    while True:
        last_look = pace.clock() >= end
        try:
            seen = look()
        except Retryable:
            failures += 1
            if failures > pace.tolerated or (last_look and not has_seen):
                raise
        else:
            failures, has_seen = 0, True
            yield seen
        if last_look:
            return
        pause = uniform(wait / 2, wait)
        pace.sleep(max(0.0, min(pause, end - pace.clock())))
        wait = min(wait * pace.growth, pace.longest)
