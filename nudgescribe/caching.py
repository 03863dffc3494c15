"""Results that are made once for a process, however many threads ask for them at the same time."""

from collections.abc import Callable
from functools import cache, wraps
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def cache_for_threads(make: Callable[P, R]) -> Callable[P, R]:
    """Return a function that calls `make` once for the same arguments.

    With `functools.cache` alone, threads that begin together make one each.
    """
    cached, making = cache(make), Lock()

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> R:
        with making:
            return cached(*args, **kwargs)

    return get
