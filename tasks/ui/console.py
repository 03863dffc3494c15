"""Progress of long work on a terminal; nothing is printed where there is no terminal."""

import logging
import sys
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

from nudgescribe.bases import Closing


class StatusLine(Closing):
    """A line below the log for as long as the work goes on: a text, the time elapsed, and a bar if
    the `total` is known. A context manager.
    """

    def __init__(
        self, text: str, total: int | None = None, *, console: Console | None = None
    ) -> None:
        console = console or _terminal()
        self._progress = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}", markup=False),
            *([] if total is None else [_bar()]),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=console is None,
        )
        self._task = self._progress.add_task(text, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def close(self) -> None:
        """Remove the line."""
        self._progress.stop()

    def update(self, text: str, completed: int | None = None) -> None:
        """Show another text, and how much of the total is completed."""
        self._progress.update(self._task, description=text, completed=completed)


def _bar() -> BarColumn:
    # By colours: Prefect's console knows no names of styles.
    return BarColumn(style="grey30", complete_style="cyan", finished_style="green")


def _terminal() -> Console | None:
    """Return Prefect's console, so that log and line do not overwrite each other."""
    if not sys.stderr.isatty():
        return None
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and handler.console.file is sys.stderr:
            return handler.console
    return Console(stderr=True)
