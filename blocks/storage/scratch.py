"""Temporary folders that are removed even if their process is killed."""

import fcntl
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir

from blocks.storage.errors import translate_disk_full

PREFIX = "nudgeflow-"


@contextmanager
def temporary_folder() -> Generator[Path]:
    """Return a folder for temporary files, removed at the end of the block.

    Folders that killed processes have left are removed first: they may hold customers.
    """
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(folder):
            rmtree(folder)
    with ExitStack() as stack:
        while True:
            folder = stack.enter_context(TemporaryDirectory(prefix=PREFIX))
            with suppress(OSError):  # another process removed it before it was locked
                stack.enter_context(_locked(Path(folder)))
                break
        yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Lock a folder. Raises OSError if a living process has locked it, or if it is gone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)
        yield
    finally:
        os.close(handle)


@contextmanager
def scratch_folder(purpose: str) -> Generator[Path]:
    """Return a temporary folder like `temporary_folder`; `purpose` is named if the disk is full.

    Raises DiskFull.
    """
    with translate_disk_full(purpose, gettempdir()), temporary_folder() as folder:
        yield folder
