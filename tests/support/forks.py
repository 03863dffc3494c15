"""Processes of their own without the seconds of a start: forked from one that has no threads, and
that has imported what they need.
"""

import os
import signal
from collections.abc import Callable
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from prefect import context as prefect_context
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

SECONDS = 60
CALLED = (
    "tests.flows.test_erase",
    "tests.flows.test_history",
    "tests.flows.test_journals",
    "tests.tasks.export.test_download",
)
"""Whose functions are called there; each fork would import its own."""


def run_in_fork(work: Callable[..., object], *arguments: object) -> int | None:
    """Calls a function of a module, and returns the exit code of the process."""
    context = get_context("forkserver")
    context.set_forkserver_preload([*CALLED, "tests.support.preloaded"])
    server = PREFECT_API_URL.value()
    process = context.Process(target=_work, args=(server, work, arguments))
    process.start()
    process.join(SECONDS)
    return process.exitcode


def kill_at(module: str, step: str, work: Callable[..., object], *arguments: object) -> None:
    """Calls a function of a module in a process that is killed where it takes a step."""
    killed = run_in_fork(_work_and_die, module, step, work, arguments)
    assert killed == -signal.SIGKILL, step


def _work(server: str | None, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    # A server that Prefect starts by itself would outlive a process that is killed.
    settings: dict[Any, Any] = {
        PREFECT_API_URL: server,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
    }
    with temporary_settings(settings):
        # Threads have no context of their own.
        prefect_context.GLOBAL_SETTINGS_CONTEXT = prefect_context.SettingsContext.get()
        work(*arguments)


def _work_and_die(
    module: str, step: str, work: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    setattr(import_module(module), step, _die)
    work(*arguments)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
