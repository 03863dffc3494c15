"""How often and how long calls are repeated.

`RetryPolicy` is for one call: reads are repeated, changes only when the service says when. `poll`
calls a function until the caller has what it waits for, up to a deadline on the monotonic clock;
`PollPolicy` says how often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import uniform
from time import monotonic, sleep
from typing import TypeVar

from nudgescribe import telemetry
from nudgescribe.errors import QuotaExceeded, Retryable
from nudgescribe.lazy import tenacity

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
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(worth_it),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=self._wait,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(call)

    def _is_worth_it(self, error: BaseException) -> bool:
        return isinstance(error, Retryable) and (error.retry_after or 0) <= self.patience

    def _was_put_off(self, error: BaseException) -> bool:
        when = error.retry_after if isinstance(error, QuotaExceeded) else None
        return when is not None and when <= self.patience

    def _sleep(self, seconds: float) -> None:
        self.sleep(seconds)
        telemetry.waited("retry", seconds)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Retryable) else None
        backoff = tenacity.wait_random_exponential(
            multiplier=self.first_wait, max=self.longest_wait
        )
        return max(asked or 0.0, backoff(state))


@dataclass(frozen=True)
class PollPolicy:
    """The waits between polls, in seconds, and how many errors in a row are `tolerated`."""

    first_wait: float = 0.5
    longest_wait: float = 15.0
    growth: float = 1.5
    tolerated: int = 20
    clock: Callable[[], float] = monotonic
    sleep: Callable[[float], None] = sleep


def poll(call: Callable[[], T], deadline: float, policy: PollPolicy | None = None) -> Iterator[T]:
    """Call `call` repeatedly and yield each result, the last one when `deadline` seconds are over.

    Stop iterating once a result satisfies; the iterator ends when the time is up.

    A Retryable error of `call` is raised only after more than `tolerated` in a row, or at the last
    call if none has returned before; any other error is raised at once.
    """
    policy = policy or PollPolicy()
    end = policy.clock() + deadline
    wait = policy.first_wait
    failures, has_result = 0, False
    while True:
        is_last = policy.clock() >= end
        try:
            result = call()
        except Retryable:
            failures += 1
            if failures > policy.tolerated or (is_last and not has_result):
                raise
        else:
            failures, has_result = 0, True
            yield result
        if is_last:
            return
        pause = uniform(wait / 2, wait)
        policy.sleep(max(0.0, min(pause, end - policy.clock())))
        wait = min(wait * policy.growth, policy.longest_wait)
