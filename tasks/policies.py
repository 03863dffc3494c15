"""How tasks are retried and cached: `@task(**READ)`, `@task(**ONCE)`.

The client repeats reads by itself; these retries are the outer net. Polling and reading are never
cached. What changes something is done once per flow run, whatever the task's code is by then: its
result is kept under the flow run and its inputs, without the task's source and the blocks: a
changed password begins nothing anew.
"""

from collections.abc import Callable
from typing import Any, TypedDict

import httpx
from prefect import Task
from prefect.cache_policies import INPUTS, NO_CACHE, RUN_ID, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectHTTPStatusError

from nudgescribe.errors import Retryable

DELAYS = [2.0, 4.0, 8.0]
"""Seconds before each further try; what is put off for longer would only be refused again."""


class Caching(TypedDict, total=False):
    cache_policy: CachePolicy
    persist_result: bool
    result_serializer: str


class Options(Caching, total=False):
    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Callable[[Task[..., Any], TaskRun, State[Any]], bool]


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task is worth another try: not before the time the service asked for.

    So it is when Prefect's server is busy or away, which is no reason to fail a refresh.
    """
    error = state.result(raise_on_failure=False)
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code >= 500
    if isinstance(error, Retryable):
        return (error.retry_after or 0) <= DELAYS[-1]
    # Our own clients let none of these through: Prefect's server could not be reached.
    return isinstance(error, httpx.TransportError)


_RETRIED: Options = {
    "retries": len(DELAYS),
    "retry_delay_seconds": DELAYS,
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
NEVER_CACHED: Caching = {"cache_policy": NO_CACHE}
READ: Options = {**NEVER_CACHED, **_RETRIED}
ONCE: Options = {
    "cache_policy": RUN_ID + (INPUTS - "account" - "crm" - "lake" - "portfolio"),
    "persist_result": True,
    "result_serializer": "json",
    **_RETRIED,
}
