"""Ways of doing something, each run in a process of its own, with its time and its memory."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# matplotlib leaves its keyword arguments open.

import gc
import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median
from time import perf_counter

CHARTS = Path(__file__).parents[1] / "docs" / "img" / "benchmarks"
BLUE, GREY = "#2563eb", "#94a3b8"

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


def medians(runs: Iterable[Measured]) -> Measured:
    """Return the median of each figure."""
    figures = zip(*map(astuple, runs), strict=True)
    wall, cpu, rows, rss, peak = map(median, figures)
    return Measured(wall, cpu, int(rows), int(rss), int(peak))


def in_turns(
    module: str, names: Iterable[str], file: Path, rounds: int
) -> dict[str, list[Measured]]:
    """Run ways in turns, each in a process of its own; print each run. Each round begins with
    another way: none is always the one after the heaviest.
    """
    names = [*names]
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            runs[name].append(in_a_process(module, name, file))
            print(f"round {number + 1}  {name:16} {runs[name][-1]}", flush=True)
    return runs


def draw(name: str, title: str, values: Mapping[str, float], unit: str, ours: str = "ours") -> None:
    """Write bars to an SVG, where matplotlib is installed; names that hold `ours` stand out."""
    if not find_spec("matplotlib"):
        print("There is no chart: matplotlib is not installed.")
        return
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    colours = [BLUE if ours in each else GREY for each in values]
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 0.9 + 0.4 * len(values)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh([*values], [*values.values()], color=colours)
        axes.bar_label(bars, [f"{each:,.3g} {unit}" for each in values.values()], padding=4)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.xaxis.set_visible(False)
        axes.spines[:].set_visible(False)
        axes.set_title(title, loc="left", fontsize=11)
        CHARTS.mkdir(parents=True, exist_ok=True)
        figure.savefig(CHARTS / f"{name}.svg", metadata={"Date": None})
    print(f"Chart: {CHARTS / f'{name}.svg'}")


def read_numbers(**defaults: int) -> list[int]:
    """Return the numbers that the command line gives, in this order, or their defaults."""
    parser = ArgumentParser()
    for name, default in defaults.items():
        parser.add_argument(name, nargs="?", type=int, default=default, metavar=name.upper())
    return [*vars(parser.parse_args()).values()]


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


def cpu_seconds_of(process: int) -> float:
    """Return the CPU time of another process so far, in seconds."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def status(key: str) -> int:
    """Return a figure of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key)))
