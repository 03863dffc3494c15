import pytest

from nudgescribe.errors import ServerError
from nudgescribe.retry import Pace, poll
from tests.support.clock import Clock


def pace_of(clock: Clock) -> Pace:
    return clock.pace(first=1, longest=8, growth=2, tolerated=3)


def test_poll_waits_grow_with_jitter_up_to_the_longest() -> None:
    clock = Clock()
    looks = poll(lambda: 1, 100, pace_of(clock))
    for _ in range(8):
        next(looks)
    for slept, longest in zip(clock.slept, [1, 2, 4, 8, 8, 8, 8], strict=True):
        assert longest / 2 <= slept <= longest


def test_poll_looks_last_at_the_deadline() -> None:
    clock = Clock()
    times = list(poll(lambda: clock.now, 10, pace_of(clock)))
    assert times[-1] == 10
    assert times[0] == 0


def test_poll_looks_once_when_deadline_is_zero() -> None:
    assert list(poll(lambda: "seen", 0, pace_of(Clock()))) == ["seen"]


def failing(times: int) -> object:
    faults = iter([ServerError("down.")] * times)

    def look() -> str:
        for fault in faults:
            raise fault
        return "seen"

    return look


def test_poll_overlooks_retryable_errors() -> None:
    clock = Clock()
    assert next(poll(failing(3), 100, pace_of(clock))) == "seen"
    assert len(clock.slept) == 3


def test_poll_raises_after_too_many_errors_in_a_row() -> None:
    with pytest.raises(ServerError):
        next(poll(failing(4), 100, pace_of(Clock())))


def test_poll_raises_error_of_the_last_look() -> None:
    with pytest.raises(ServerError):
        next(poll(failing(1), 0, pace_of(Clock())))


def test_poll_raises_other_errors_at_once() -> None:
    def look() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        next(poll(look, 100, pace_of(Clock())))
