"""What people see of an export while it works."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest

from tasks.ui import progress
from tasks.ui.progress import Board, Done, Meter, done_here, start_meter
from tests.support.clock import Clock

HALF = Done(pages=20, rows=1_000_000, bytes=400_000_000)
WHOLE = Done(pages=40, rows=2_000_000, bytes=800_000_000)


@dataclass
class Artifacts:
    """The progress artifacts of a Prefect server."""

    keys: dict[UUID, str] = field(default_factory=dict)
    shown: list[tuple[float, str]] = field(default_factory=list)

    def create(self, percent: float, *, key: str, description: str) -> UUID:
        one = uuid4()
        self.keys[one] = key
        self.shown.append((percent, description))
        return one

    def update(self, artifact: UUID, percent: float, *, description: str) -> None:
        assert artifact in self.keys
        self.shown.append((percent, description))


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    one = Artifacts()
    monkeypatch.setattr(progress, "create_progress_artifact", one.create)
    monkeypatch.setattr(progress, "update_progress_artifact", one.update)
    return one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(artifacts: Artifacts, clock: Clock) -> Iterator[Board]:
    with Board("export-c", 40, lambda: clock.now) as one:
        yield one


def test_it_begins_with_the_number_of_pages(board: Board, artifacts: Artifacts) -> None:
    assert list(artifacts.keys.values()) == ["export-c"]
    assert artifacts.shown == [(0.0, "40 pages")]


def test_it_shows_how_far_it_is_how_fast_and_how_long_yet(
    board: Board, artifacts: Artifacts, clock: Clock
) -> None:
    clock.sleep(100)
    board.show(HALF)
    clock.sleep(25)
    board.show(Done(pages=30, rows=1_500_000, bytes=600_000_000))
    assert artifacts.shown[1:] == [
        (50.0, "20 of 40 pages, 1,000,000 rows, 400.0 MB, 4.0 MB/s, 0:01:40 left"),
        (75.0, "30 of 40 pages, 1,500,000 rows, 600.0 MB, 4.8 MB/s, 0:00:42 left"),
    ]


def test_it_shows_something_new_every_two_seconds_at_most(
    board: Board, artifacts: Artifacts, clock: Clock
) -> None:
    for tenth in range(100):
        board.show(Done(pages=tenth // 4))
        clock.sleep(0.125)
    assert [percent for percent, _ in artifacts.shown] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


def test_the_end_is_always_shown(board: Board, artifacts: Artifacts, clock: Clock) -> None:
    clock.sleep(2)
    board.show(HALF)
    clock.sleep(0.5)
    board.show(WHOLE)
    board.show(WHOLE, last=True)
    assert [percent for percent, _ in artifacts.shown] == [0.0, 50.0, 100.0]
    assert artifacts.shown[-1][1].endswith("320.0 MB/s, 0:00:00 left")


def test_what_an_earlier_try_has_done_says_nothing_about_speed(
    board: Board, artifacts: Artifacts, clock: Clock
) -> None:
    earlier = Done(pages=20, rows=5, bytes=8000, earlier_pages=20, earlier_bytes=8000)
    clock.sleep(10)
    board.show(earlier)
    assert artifacts.shown[-1] == (50.0, "20 of 40 pages, 5 rows, 8.0 kB")
    clock.sleep(10)
    board.show(earlier + Done(pages=10, rows=5, bytes=4000))
    assert artifacts.shown[-1] == (
        75.0,
        "30 of 40 pages, 10 rows, 12.0 kB, 200 bytes/s, 0:00:20 left",
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_where_somebody_sees_it(
    artifacts: Artifacts, clock: Clock, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    output: Any = StringIO()
    monkeypatch.setattr(output, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    with Board("export-c", 40, lambda: clock.now) as board:
        clock.sleep(100)
        board.show(HALF)
    assert ("20 of 40 pages, 1,000,000 rows" in output.getvalue()) == terminal
    assert (output.getvalue() == "") != terminal
    assert artifacts.shown[-1][0] == 50.0


def test_a_meter_counts_what_is_done_and_what_was_done_before() -> None:
    meter = start_meter("w", 0)
    meter.add(10, 500, earlier=True)
    meter.add(20, 700)
    assert meter.done == Done(pages=2, rows=30, bytes=1200, earlier_pages=1, earlier_bytes=500)
    assert done_here("w", 0) == meter.done
    assert done_here("w", 1) == done_here("another", 0) == Done()
    start_meter("w", 0)
    assert done_here("w", 0) == Done()
    assert Meter().done == Done()
