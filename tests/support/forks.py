"""Processes of their own without the seconds of a start: forked from one that has no threads, and
that has imported what they need.
"""

from collections.abc import Callable
from multiprocessing import get_context

from flows.run.zygote import IMPORTED

SECONDS = 60


def run_in_fork(work: Callable[..., object], *arguments: object) -> int | None:
    """Calls a function of a module, and returns the exit code of the process."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.conftest", *IMPORTED])
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join(SECONDS)
    return process.exitcode
