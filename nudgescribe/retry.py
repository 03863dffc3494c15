"""The one retry policy: reads only, exponential with jitter, the service's own wait honoured."""

from collections.abc import Callable
from dataclasses import dataclass
from time import sleep
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from nudgescribe.errors import TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Waits are seconds. A service that asks for more than `patience` is not waited for."""

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0
    patience: float = 300.0
    sleep: Callable[[float], None] = sleep

    def run(self, call: Callable[[], T]) -> T:
        """What `call` returns, asked again while it fails transiently; then its last error."""
        retrying = Retrying(
            retry=retry_if_exception(self._is_worth_it),
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(call)

    def _is_worth_it(self, error: BaseException) -> bool:
        return isinstance(error, TransientError) and (error.retry_after or 0) <= self.patience

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        backoff = wait_random_exponential(multiplier=self.first_wait, max=self.longest_wait)
        return max(asked or 0.0, backoff(state))
