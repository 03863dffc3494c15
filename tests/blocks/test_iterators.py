from collections.abc import Iterator
from threading import Event

import pytest

from blocks.iterators import prefetch


def test_prefetch_computes_the_next_while_one_is_used() -> None:
    begun = [Event() for _ in range(4)]

    def numbers() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    found: list[int] = []
    for number in prefetch(numbers()):
        found.append(number)
        assert all(event.wait(10) for event in begun[: number + 2])
    assert found == [0, 1, 2, 3]


def test_prefetch_raises_an_error_after_the_items_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    items = prefetch(numbers())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)
