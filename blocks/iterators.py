"""Items one after another: worked out ahead of their use, or in groups."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Generator[T]:
    """The same items; while one is used, a thread works out the next."""
    with ThreadPoolExecutor(1) as thread:
        end = object()
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item  # pyright: ignore[reportReturnType] - the end is no item


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The same items, `size` at a time."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
