"""Iterators that blocks and tasks share: prefetched, or in batches."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from nudgescribe.telemetry import within_span

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Generator[T]:
    """Yield the same items; while one is in use, a thread computes the next.

    An error of `items` is raised after the items before it. A generator is closed at the end.
    """
    end = object()
    try:
        with ThreadPoolExecutor(1) as thread:
            compute = within_span(lambda: next(items, end))
            upcoming = thread.submit(compute)
            while (item := upcoming.result()) is not end:
                upcoming = thread.submit(compute)
                yield item  # pyright: ignore[reportReturnType] - never the sentinel
    finally:
        if isinstance(items, Generator):
            items.close()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the same items in lists of `size`, like `itertools.batched` of Python 3.12."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
