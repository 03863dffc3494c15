"""How far an export has come: counted by whoever works on it, shown by whoever waits."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import BaseModel, ConfigDict
from rich.filesize import decimal

from tasks.ui.console import Line

SECONDS_BETWEEN = 2.0


class Done(BaseModel):
    """Pages with their rows and bytes; those that an earlier try has done are among them."""

    model_config = ConfigDict(frozen=True)

    pages: int = 0
    rows: int = 0
    bytes: int = 0
    earlier_pages: int = 0
    earlier_bytes: int = 0

    def __add__(self, other: "Done") -> "Done":
        mine, its = self.model_dump(), other.model_dump()
        return Done(**{name: mine[name] + its[name] for name in mine})


class Meter:
    """Counts what a chunk has done; shared among threads."""

    def __init__(self) -> None:
        self.done = Done()
        self._lock = Lock()

    def add(self, rows: int, size: int, *, earlier: bool = False) -> None:
        page = Done(
            pages=1,
            rows=rows,
            bytes=size,
            earlier_pages=int(earlier),
            earlier_bytes=size * earlier,
        )
        with self._lock:
            self.done += page


_METERS: dict[tuple[str, int], Meter] = {}


def start_meter(writer: str, first: int) -> Meter:
    """A meter at zero for the chunk that begins with page `first`."""
    meter = _METERS[writer, first] = Meter()
    return meter


def forget_meters(writer: str) -> None:
    """Ends the counting of an export's chunks."""
    for key in [key for key in _METERS if key[0] == writer]:
        del _METERS[key]


def done_here(writer: str, first: int) -> Done:
    """What this process has done of a chunk; nothing if another one works on it."""
    meter = _METERS.get((writer, first))
    return meter.done if meter else Done()


class Board:
    """A progress artifact and a line in the terminal, new at most every two seconds. A context
    manager.
    """

    def __init__(self, key: str, pages: int, clock: Callable[[], float] = monotonic) -> None:
        self._pages = pages
        self._clock = clock
        self._began = self._shown = clock()
        artifact = create_progress_artifact(0.0, key=key, description=f"{pages:,} pages")
        assert isinstance(artifact, UUID)
        self._artifact = artifact
        self._line = Line(f"{pages:,} pages", pages)

    def __enter__(self) -> Self:
        self._line.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._line.__exit__(kind, error, traceback)

    def show(self, done: Done, *, last: bool = False) -> None:
        """Shows how far it is, unless it was shown a moment ago; the `last` one always."""
        now = self._clock()
        if not last and now - self._shown < SECONDS_BETWEEN:
            return
        self._shown = now
        text = _describe(done, self._pages, now - self._began)
        show_progress(self._artifact, 100.0 * done.pages / self._pages, text)
        self._line.show(text, done.pages)


def show_progress(artifact: UUID, progress: float, description: str) -> None:
    """Updates a progress artifact, or leaves it if Prefect's server is away: work goes on."""
    with suppress(PrefectHTTPStatusError, httpx.TransportError):
        update_progress_artifact(artifact, progress, description=description)


def _describe(done: Done, pages: int, seconds: float) -> str:
    text = f"{done.pages:,} of {pages:,} pages, {done.rows:,} rows, {decimal(done.bytes)}"
    new = done.pages - done.earlier_pages
    if not seconds or not new:
        return text
    rate = (done.bytes - done.earlier_bytes) / seconds
    left = (pages - done.pages) * seconds / new
    return f"{text}, {decimal(int(rate))}/s, {timedelta(seconds=round(left))} left"
