"""A disk that gets full, and has room again."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BYTES = 1024 * 1024


@dataclass(frozen=True)
class Disk:
    folder: Path
    mounted: bool

    @contextmanager
    def full(self) -> Iterator[None]:
        """There is no room left; within this process, if the disk is not one of its own."""
        if not self.mounted:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        filler = os.open(self.folder / "filler", os.O_CREAT | os.O_WRONLY)
        try:
            with open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass
        try:
            yield
        finally:
            (self.folder / "filler").unlink()


@contextmanager
def small(folder: Path) -> Iterator[Disk]:
    """A small disk mounted at a new folder. Who may not mount one gets limits of file sizes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
