"""Progress of an export: counted by the tasks that fetch, displayed by the flow that waits."""

from collections.abc import Callable
from datetime import timedelta
from threading import Lock
from time import monotonic
from typing import Self

from rich.filesize import decimal

from nudgescribe.bases import Closing, Frozen
from nudgescribe.errors import counted
from tasks.ui.artifacts import start_progress, update_progress
from tasks.ui.console import StatusLine

SECONDS_BETWEEN_UPDATES = 2.0


class Progress(Frozen):
    """Pages fetched, with their rows and bytes; the `earlier_` ones, which an earlier try has
    fetched, are included in the totals.
    """

    pages: int = 0
    rows: int = 0
    bytes: int = 0
    earlier_pages: int = 0
    earlier_bytes: int = 0

    def __add__(self, other: "Progress") -> "Progress":
        mine, its = self.model_dump(), other.model_dump()
        return Progress(**{name: mine[name] + its[name] for name in mine})


class ProgressCounter:
    """Counts the pages of one chunk; threads may share it."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._lock = Lock()

    def add(self, rows: int, size: int, *, earlier: bool = False) -> None:
        """Count one page, with its rows and its size in bytes."""
        page = Progress(
            pages=1,
            rows=rows,
            bytes=size,
            earlier_pages=int(earlier),
            earlier_bytes=size * earlier,
        )
        with self._lock:
            self.progress += page


_COUNTERS: dict[tuple[str, int], ProgressCounter] = {}


def start_counter(writer: str, first: int) -> ProgressCounter:
    """Register a counter for the export's chunk that begins with page `first`."""
    counter = _COUNTERS[writer, first] = ProgressCounter()
    return counter


def discard_counters(writer: str) -> None:
    """Forget the counters of an export."""
    for key in [key for key in _COUNTERS if key[0] == writer]:
        del _COUNTERS[key]


def progress_here(writer: str, first: int) -> Progress:
    """Return what this process has counted of a chunk; nothing if another process works on it."""
    counter = _COUNTERS.get((writer, first))
    return counter.progress if counter else Progress()


class ProgressDisplay(Closing):
    """A progress artifact and a line on the terminal, updated at most every two seconds. A context
    manager.
    """

    def __init__(self, key: str, pages: int, clock: Callable[[], float] = monotonic) -> None:
        self._pages = pages
        self._clock = clock
        self._started = self._updated = clock()
        self._artifact = start_progress(key, counted(pages, "page"))
        self._line = StatusLine(counted(pages, "page"), pages)

    def __enter__(self) -> Self:
        self._line.__enter__()
        return self

    def close(self) -> None:
        """Remove the line from the terminal; the artifact stays."""
        self._line.close()

    def update(self, progress: Progress, *, last: bool = False) -> None:
        """Display the progress, unless that was done a moment ago; the `last` one always."""
        now = self._clock()
        if not last and now - self._updated < SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        text = _describe(progress, self._pages, now - self._started)
        update_progress(self._artifact, 100.0 * progress.pages / self._pages, text)
        self._line.update(text, progress.pages)


def _describe(progress: Progress, pages: int, seconds: float) -> str:
    size = decimal(progress.bytes)
    text = f"{progress.pages:,} of {pages:,} pages, {counted(progress.rows, 'row')}, {size}"
    new = progress.pages - progress.earlier_pages
    if not seconds or not new:
        return text
    rate = (progress.bytes - progress.earlier_bytes) / seconds
    left = (pages - progress.pages) * seconds / new
    return f"{text}, {decimal(int(rate))}/s, {timedelta(seconds=round(left))} left"
