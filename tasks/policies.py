"""How tasks are retried and cached: `@task(**READ)`, `@task(**ONCE)`.

The client repeats reads by itself; these retries are the outer net. Polling and reading are never
cached. What changes something is done once per flow run, whatever the task's code is by then: its
result is kept under the flow run and its inputs, without the task's source.
"""

from collections.abc import Callable
from typing import Any, TypedDict

from prefect import Task
from prefect.cache_policies import INPUTS, NO_CACHE, RUN_ID, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from nudgescribe.errors import TransientError


class Caching(TypedDict, total=False):
    cache_policy: CachePolicy
    persist_result: bool
    result_serializer: str


class Options(Caching, total=False):
    retries: int
    retry_delay_seconds: Callable[[int], list[float]]
    retry_jitter_factor: float
    retry_condition_fn: Callable[[Task[..., Any], TaskRun, State[Any]], bool]


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task is worth another try."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


_RETRIED: Options = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
NEVER_CACHED: Caching = {"cache_policy": NO_CACHE}
READ: Options = {**NEVER_CACHED, **_RETRIED}
ONCE: Options = {
    "cache_policy": RUN_ID + INPUTS,
    "persist_result": True,
    "result_serializer": "json",
    **_RETRIED,
}
