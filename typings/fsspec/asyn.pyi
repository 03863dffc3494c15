from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

def sync(loop: Any, func: Callable[..., Awaitable[T]], *args: Any) -> T: ...
