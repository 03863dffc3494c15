"""What people at a terminal see, and that nobody else sees anything."""

import logging
import os
import pty
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import TextIO

import pytest
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from tasks.ui.console import StatusLine

ERASED = "\x1b[2K"


def terminal(**options: bool) -> Console:
    """A terminal that is a string."""
    return Console(file=StringIO(), force_terminal=True, width=100, **options)


def written_by(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_status_line_shows_progress_and_disappears() -> None:
    console = terminal(no_color=True)
    with StatusLine("Uploading", 400, console=console) as line:
        line.update("Uploading [100] of 400", 100)
    written = written_by(console)
    assert re.search(r"Uploading \[100\] of 400 ━{10}[^━]", written)
    assert "0:00:00" in written
    assert written.endswith(f"\x1b[1A{ERASED}")


def test_status_line_has_no_bar_without_total() -> None:
    console = terminal()
    with StatusLine("Waiting", console=console) as line:
        line.update("Waiting: Generating")
    assert "Waiting: Generating" in written_by(console)
    assert "━" not in written_by(console)


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_status_line_respects_no_color(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    console = terminal()
    with StatusLine("Uploading", 400, console=console) as line:
        line.update("Uploading", 100)
    assert bool(re.search(r"\x1b\[[0-9;]*m", written_by(console))) == coloured


@pytest.mark.parametrize("variable", [None, "FORCE_COLOR", "TTY_INTERACTIVE"])
def test_status_line_is_silent_without_terminal(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    output = StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr(sys, "stdout", output)
    if variable:
        monkeypatch.setenv(variable, "1")
    with StatusLine("Uploading", 400) as line:
        line.update("Uploading", 100)
    assert output.getvalue() == ""


@contextmanager
def real_terminal(monkeypatch: pytest.MonkeyPatch, sent: Path) -> Iterator[TextIO]:
    """A pseudo-terminal as this process's stderr; after the block a file has what it was sent."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")

    def read() -> None:
        with sent.open("wb") as file:
            try:
                while some := os.read(ours, 4096):
                    file.write(some)
            except OSError:  # its other end is closed
                pass

    reader = Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        yield stream
    reader.join()
    os.close(ours)


def test_status_line_does_not_overwrite_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logger = logging.getLogger("tests.terminal")
    logger.setLevel(logging.INFO)
    sent = tmp_path / "sent"
    with real_terminal(monkeypatch, sent) as stream:
        handler = PrefectConsoleHandler(stream, styles={"log.info_level": "cyan"})
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
        with StatusLine("Uploading", 2) as line:
            logger.info("first %s", "x" * 200)
            line.update("Uploading, 1 of 2", 1)
            logger.info("second")
            with StatusLine("Another at the same time"):
                logger.info("third")
        logger.info("fourth")
    written = sent.read_bytes().decode()
    for said in ("first x", "second", "third"):
        assert f"\r{ERASED}{said}" in written
    assert f"{ERASED}fourth\r\n" in written
    assert "Uploading, 1 of 2" in written


def test_status_line_uses_terminal_without_prefect_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere, sent = PrefectConsoleHandler(StringIO()), tmp_path / "sent"
    monkeypatch.setattr(logging.getLogger(), "handlers", [elsewhere])
    with real_terminal(monkeypatch, sent):
        with StatusLine("Waiting for run 2"):
            pass
    assert "Waiting for run 2" in sent.read_bytes().decode()
