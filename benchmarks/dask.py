"""Fetching a run's export by two Dask workers of one thread each, against by one.

python -m benchmarks.dask [ROWS]

Once with a service that answers late and slowly, once with one that is as fast as this machine
allows. All of it shares this machine's cores, also the service and Prefect's server. Medians of
the chunks, from the beginning of the first to the end of the last, and of the flow around them,
which Prefect rounds up to whole seconds.

The CPU seconds of the chunks' time say what two cores allow: one worker has a core and all else the
other; two workers and all else share both. So two are at most 2 W / (W + E) times as fast as one,
where W is the workers' CPU time and E that of everything else.
"""

import json
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from time import perf_counter, sleep, time
from typing import Any

import psutil
from prefect.testing.utilities import prefect_test_harness

from benchmarks.export import served, write_pages
from benchmarks.measuring import cpu_seconds_of, draw, read_numbers
from benchmarks.pages_server import CAMPAIGN
from blocks import DataLake, NudgescribeAccount
from flows.export import export_messages
from flows.options import ExportOptions

PAGE_ROWS = 50_000
ROUNDS = 3
SERVICES = {"120 ms away, 12 MB/s a connection": True, "on this machine": False}


@dataclass(frozen=True)
class Measured:
    """Seconds: of the chunks, of the flow around them, and of CPU in the time of the chunks, the
    workers' and everything's.
    """

    chunks: float
    flow: float
    workers: float
    all: float

    @property
    def ceiling(self) -> float:
        """Return how many times as fast two workers can be, with all else on the same two cores."""
        return min(2, 2 * self.workers / self.all)


@contextmanager
def cluster(workers: int) -> Generator[tuple[str, list[int]]]:
    """Run a scheduler and workers in processes of their own; yield the address, and the workers'
    process ids.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))

        def start(program: str, *options: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", f"distributed.cli.{program}", *options]
            command += ["--scheduler-file", str(folder / "scheduler"), "--host", "127.0.0.1"]
            command += ["--dashboard-address", "127.0.0.1:0"]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - ours
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = start("dask_scheduler", "--port", "0")
        while not (folder / "scheduler").exists():
            assert scheduler.poll() is None
            sleep(0.1)
        options = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        pids = [start("dask_worker", *options).pid for _ in range(workers)]
        address = json.loads((folder / "scheduler").read_text())["address"]
        with observer(address) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address, pids


def observer(address: str) -> Any:
    """Return a client that the flow does not take for its own; Dask has no types."""
    return import_module("distributed").Client(address, set_as_default=False)


@dataclass(frozen=True)
class Sample:
    """The CPU seconds so far at a moment: the workers', and everything's."""

    at: float
    workers: float
    all: float


@contextmanager
def sampled(workers: list[int]) -> Generator[list[Sample]]:
    """Note the CPU time ten times a second. The service, the cluster and Prefect's server are
    children of this process.
    """
    own, samples, ended = psutil.Process(), list[Sample](), Event()

    def sample() -> None:
        while not ended.wait(0.1):
            everything = [own.pid, *(each.pid for each in own.children(recursive=True))]
            used = (sum(map(cpu_seconds_of, each)) for each in (workers, everything))
            samples.append(Sample(time(), *used))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(sample)
        yield samples
        ended.set()


def fetch(address: str, workers: list[int], rows: int) -> Measured:
    """Run the flow into a lake of its own."""
    options = ExportOptions(task_runner="dask", cluster=address)
    with TemporaryDirectory() as folder, observer(address) as client:
        lake = DataLake(root=folder)
        lake.save("benchmark", overwrite=True)
        account = NudgescribeAccount.model_validate("benchmark")
        begun = len(client.get_task_stream())  # from the first such call on, tasks are noted
        with sampled(workers) as samples:
            start = perf_counter()
            (fetched,) = export_messages(CAMPAIGN, account, lake, options=options)
            seconds = perf_counter() - start
        noted: list[dict[str, Any]] = client.get_task_stream()[begun:]
    if fetched.rows != rows:
        raise SystemExit(f"{fetched.rows:,} rows instead of {rows:,}")
    times = [each for task in noted for each in task["startstops"]]
    first, last = min(each["start"] for each in times), max(each["stop"] for each in times)
    before = [each for each in samples if each.at <= first][-1]
    after = next((each for each in samples if each.at >= last), samples[-1])
    used = after.workers - before.workers, after.all - before.all
    return Measured(last - first, seconds, *used)


def measure(rows: int) -> list[Measured]:
    """Return medians with one and with two workers, measured in turns, after a round each in which
    the workers import what they need.
    """
    runs: list[list[Measured]] = [[], []]
    with cluster(1) as one, cluster(2) as two:
        for number in range(-1, ROUNDS):
            for place, (address, workers) in enumerate((one, two)):
                measured = fetch(address, workers, rows)
                runs[place] += [measured] * (number >= 0)
    return [Measured(*map(median, zip(*map(astuple, each), strict=True))) for each in runs]


def main(rows: int) -> None:
    """Measure one and two workers with each service, and print a table."""
    lines = [f"{'':42}{'1 worker':>10}{'2 workers':>11}{'speed-up':>10}{'at most':>9}"]
    speed: dict[str, float] = {}
    with TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=120):
        size = write_pages(Path(folder), rows, PAGE_ROWS)
        for service, wan in SERVICES.items():
            with served(Path(folder), rows, wan) as url:
                secrets = dict.fromkeys(("email", "password", "api_key", "api_code"), "benchmark")
                account = NudgescribeAccount.model_validate({"base_url": url, **secrets})
                account.save("benchmark", overwrite=True)
                one, two = measure(rows)
            ceiling = one.ceiling if not wan else 2.0
            for name, a, b in (("chunks", one.chunks, two.chunks), ("flow", one.flow, two.flow)):
                row = f"{service:36}{name:6}{a:8.2f} s{b:9.2f} s{a / b:10.2f}"
                lines.append(row + f"{ceiling:9.2f}" * (name == "chunks"))
            lines.append(f"{'':36}CPU   {one.workers:8.2f} s{two.workers:9.2f} s  of the workers")
            rest = one.all - one.workers, two.all - two.workers
            lines.append(f"{'':42}{rest[0]:8.2f} s{rest[1]:9.2f} s  of everything else")
            speed[service] = one.chunks / two.chunks
    title = f"{rows:,} rows, {-(-rows // PAGE_ROWS)} pages, {size / 1e6:,.0f} MB"
    print("", title, "", *lines, sep="\n")
    draw("dask", "Two Dask workers to one, chunks of an export", speed, "x", ours="")


if __name__ == "__main__":
    main(*read_numbers(rows=1_000_000))
