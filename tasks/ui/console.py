"""What people at a terminal see of long work; nothing is shown where there is no terminal."""

import logging
import sys
from types import TracebackType
from typing import Self

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Line:
    """A line below the log that lives as long as the work: how far it is, for how long it has been
    going on, and a bar if it is known how much there is. A context manager.
    """

    def __init__(
        self, text: str, total: int | None = None, *, console: Console | None = None
    ) -> None:
        shown_on = console or _terminal()
        self._line = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}", markup=False),
            *([] if total is None else [_bar()]),
            TimeElapsedColumn(),
            console=shown_on,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=shown_on is None,
        )
        self._work = self._line.add_task(text, total=total)

    def __enter__(self) -> Self:
        self._line.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._line.stop()

    def show(self, text: str, done: int | None = None) -> None:
        """Says how far it is."""
        self._line.update(self._work, description=text, completed=done)


def _bar() -> BarColumn:
    # By colours: Prefect's console knows no names of styles.
    return BarColumn(style="grey30", complete_style="cyan", finished_style="green")


def _terminal() -> Console | None:
    """Prefect's console, so that log and line do not write over each other."""
    if not sys.stderr.isatty():
        return None
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and handler.console.file is sys.stderr:
            return handler.console
    return Console(stderr=True)
