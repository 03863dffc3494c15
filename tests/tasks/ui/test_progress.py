"""What people see of an export while it works."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest

from tasks.ui.progress import (
    Progress,
    ProgressCounter,
    ProgressDisplay,
    progress_here,
    start_counter,
)
from tests.support.clock import Clock

HALF = Progress(pages=20, rows=1_000_000, bytes=400_000_000)
WHOLE = Progress(pages=40, rows=2_000_000, bytes=800_000_000)


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
    monkeypatch.setattr("tasks.ui.artifacts.create_progress_artifact", one.create)
    monkeypatch.setattr("tasks.ui.artifacts.update_progress_artifact", one.update)
    return one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def display(artifacts: Artifacts, clock: Clock) -> Iterator[ProgressDisplay]:
    with ProgressDisplay("export-c", 40, lambda: clock.now) as one:
        yield one


def test_display_shows_progress_rate_and_time_left(
    display: ProgressDisplay, artifacts: Artifacts, clock: Clock
) -> None:
    clock.sleep(100)
    display.update(HALF)
    clock.sleep(25)
    display.update(Progress(pages=30, rows=1_500_000, bytes=600_000_000))
    assert list(artifacts.keys.values()) == ["export-c"]
    assert artifacts.shown == [
        (0.0, "40 pages"),
        (50.0, "20 of 40 pages, 1,000,000 rows, 400.0 MB, 4.0 MB/s, 0:01:40 left"),
        (75.0, "30 of 40 pages, 1,500,000 rows, 600.0 MB, 4.8 MB/s, 0:00:42 left"),
    ]


def test_display_updates_every_two_seconds_at_most(
    display: ProgressDisplay, artifacts: Artifacts, clock: Clock
) -> None:
    for tenth in range(100):
        display.update(Progress(pages=tenth // 4))
        clock.sleep(0.125)
    assert [percent for percent, _ in artifacts.shown] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


def test_display_always_shows_the_end(
    display: ProgressDisplay, artifacts: Artifacts, clock: Clock
) -> None:
    clock.sleep(2)
    display.update(HALF)
    clock.sleep(0.5)
    display.update(WHOLE)
    display.update(WHOLE, last=True)
    assert [percent for percent, _ in artifacts.shown] == [0.0, 50.0, 100.0]
    assert artifacts.shown[-1][1].endswith("320.0 MB/s, 0:00:00 left")


def test_display_rate_ignores_earlier_tries(
    display: ProgressDisplay, artifacts: Artifacts, clock: Clock
) -> None:
    earlier = Progress(pages=20, rows=5, bytes=8000, earlier_pages=20, earlier_bytes=8000)
    clock.sleep(10)
    display.update(earlier)
    assert artifacts.shown[-1] == (50.0, "20 of 40 pages, 5 rows, 8.0 kB")
    clock.sleep(10)
    display.update(earlier + Progress(pages=10, rows=5, bytes=4000))
    assert artifacts.shown[-1] == (
        75.0,
        "30 of 40 pages, 10 rows, 12.0 kB, 200 bytes/s, 0:00:20 left",
    )


def test_display_shows_line_on_terminal(
    artifacts: Artifacts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    output: Any = StringIO()
    monkeypatch.setattr(output, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    with ProgressDisplay("export-c", 40, lambda: clock.now) as display:
        clock.sleep(100)
        display.update(HALF)
    assert "20 of 40 pages, 1,000,000 rows" in output.getvalue()
    assert artifacts.shown[-1][0] == 50.0


def test_counter_counts_new_and_earlier_pages() -> None:
    counter = start_counter("w", 0)
    counter.add(10, 500, earlier=True)
    counter.add(20, 700)
    assert counter.progress == Progress(
        pages=2, rows=30, bytes=1200, earlier_pages=1, earlier_bytes=500
    )
    assert progress_here("w", 0) == counter.progress
    assert progress_here("w", 1) == progress_here("another", 0) == Progress()
    start_counter("w", 0)
    assert progress_here("w", 0) == Progress()
    assert ProgressCounter().progress == Progress()
