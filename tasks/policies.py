"""How tasks are retried and cached. Polling and reading are never cached; what changes something
is done once per flow run, whatever the task's code looks like by then.
"""

from typing import Any

from prefect import Task
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from nudgescribe.errors import TransientError

ONCE = RUN_ID + INPUTS
BACKOFF = exponential_backoff(2)
RETRIES = 3
JITTER = 0.5


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task is worth another try."""
    return isinstance(state.result(raise_on_failure=False), TransientError)
