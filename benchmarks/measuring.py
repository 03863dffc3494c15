"""A way of doing something, run in a process of its own, with its time and its memory."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import perf_counter

Way = Callable[[Path], int]
"""Works on a file; returns how many rows came through."""


@dataclass(frozen=True)
class Measured:
    """Seconds, rows, and kB of memory after the imports and at the peak."""

    wall: float
    cpu: float
    rows: int
    rss: int
    peak: int

    def __str__(self) -> str:
        return (
            f"{self.rows / self.wall:12,.0f} rows/s {self.cpu:8.2f} CPU s "
            f"{(self.peak - self.rss) / 1024:7.0f} MiB   {self.rows:,} rows"
        )


def in_a_process(module: str, way: str, file: Path) -> Measured:
    """Run `python -m module --child way file`, which calls `as_a_child`; return its figures."""
    command = [sys.executable, "-m", module, "--child", way, str(file)]
    return Measured(**json.loads(subprocess.check_output(command).splitlines()[-1]))  # noqa: S603


def as_a_child(ways: Mapping[str, Way]) -> None:
    """Run the way that the command line names, and print what was measured."""
    way, file = ways[sys.argv[2]], Path(sys.argv[3])
    way(file.with_suffix(".few"))  # imports and the like
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    rss, start, cpu = status("VmRSS"), perf_counter(), cpu_seconds()
    rows = way(file)
    wall, used = perf_counter() - start, cpu_seconds() - cpu
    print(json.dumps(asdict(Measured(wall, used, rows, rss, status("VmHWM")))))


def cpu_seconds() -> float:
    """Return the CPU time of this process and its ended children, in seconds."""
    used = map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def status(key: str) -> int:
    """Return a figure of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key)))
