"""Retry and cache policies of tasks: `@task(**RETRIED)`, `@task(**NEVER_CACHED)`.

The client repeats reads by itself; these retries come on top. No task's result is cached or
persisted by Prefect: whoever can write to the store of results could plant one, and pods share
none. What must not be done twice is in the journal.
"""

from collections.abc import Callable
from typing import Any, TypedDict

import httpx
from prefect import Task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectHTTPStatusError

from nudgescribe.errors import Retryable

DELAYS = [2.0, 4.0, 8.0]
"""Seconds before each further try; an error that asks for a longer wait is not tried again."""


class Caching(TypedDict, total=False):
    """Options of a task by which Prefect keeps none of its results."""

    cache_policy: CachePolicy
    persist_result: bool


class Options(Caching, total=False):
    """Options of a task that is tried again."""

    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Callable[[Task[..., Any], TaskRun, State[Any]], bool]


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failed task is tried again: if its error is Retryable and asks for no longer
    wait than the last of DELAYS, or if Prefect's server is busy or cannot be reached.
    """
    error = state.result(raise_on_failure=False)
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code >= 500
    if isinstance(error, Retryable):
        return (error.retry_after or 0) <= DELAYS[-1]
    # Our own clients translate these errors, so this one is about Prefect's server.
    return isinstance(error, httpx.TransportError)


NEVER_CACHED: Caching = {"cache_policy": NO_CACHE, "persist_result": False}
RETRIED: Options = {
    **NEVER_CACHED,
    "retries": len(DELAYS),
    "retry_delay_seconds": DELAYS,
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
