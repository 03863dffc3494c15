"""Temporary folders that leave nothing behind, whatever ends the process."""

import fcntl
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir

from blocks.storage.errors import room_for

SCRATCH = "nudgeflow-"


@contextmanager
def temporary_folder() -> Generator[Path]:
    """A folder for temporary files, gone after the block. What killed processes left of theirs is
    removed as well: it may hold customers.
    """
    place = Path(gettempdir())
    for folder in place.glob(f"{SCRATCH}*"):
        with suppress(OSError), _held(folder):
            rmtree(folder)
    with ExitStack() as stack:
        while True:
            folder = stack.enter_context(TemporaryDirectory(prefix=SCRATCH))
            with suppress(OSError):  # somebody took it for one that a killed process left
                stack.enter_context(_held(Path(folder)))
                break
        yield Path(folder)


@contextmanager
def _held(folder: Path) -> Generator[None]:
    """Raises OSError if a process that lives holds it already, or if it is gone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)
        yield
    finally:
        os.close(handle)


@contextmanager
def scratch(what: str) -> Generator[Path]:
    """A folder for temporary files, gone after the block. Raises DiskFull."""
    with room_for(what, gettempdir()), temporary_folder() as folder:
        yield folder
