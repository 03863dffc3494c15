"""Fetching a run's export by two Dask workers of one thread each, against by one.

python -m benchmarks.dask [ROWS]

Once with a service that answers late and slowly, once with one that is as fast as this machine
allows. All of it shares this machine's cores, also the service and Prefect's server. Medians of
the chunks, from the beginning of the first to the end of the last, and of the flow around them,
which Prefect rounds up to whole seconds.
"""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any

from prefect.testing.utilities import prefect_test_harness

from benchmarks.export import served, write_pages
from benchmarks.pages_server import CAMPAIGN
from blocks import DataLake, NudgescribeAccount
from flows.export import export_messages
from flows.options import ExportOptions

PAGE_ROWS = 50_000
ROUNDS = 3
SERVICES = {"120 ms away, 12 MB/s a connection": True, "on this machine": False}


@dataclass(frozen=True)
class Measured:
    """Seconds, of the chunks and of the flow around them."""

    chunks: float
    flow: float


@contextmanager
def cluster(workers: int) -> Generator[str]:
    """Run a scheduler and workers in processes of their own; yield their address."""
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
        for _ in range(workers):
            start("dask_worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        address = json.loads((folder / "scheduler").read_text())["address"]
        with observer(address) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address


def observer(address: str) -> Any:
    """Return a client that the flow does not take for its own; Dask has no types."""
    return import_module("distributed").Client(address, set_as_default=False)


def fetch(address: str, rows: int) -> Measured:
    """Run the flow into a lake of its own."""
    options = ExportOptions(task_runner="dask", cluster=address)
    with TemporaryDirectory() as folder, observer(address) as client:
        lake = DataLake(root=folder)
        lake.save("benchmark", overwrite=True)
        account = NudgescribeAccount.model_validate("benchmark")
        begun = len(client.get_task_stream())  # from the first such call on, tasks are noted
        start = perf_counter()
        (fetched,) = export_messages(CAMPAIGN, account, lake, options=options)
        seconds = perf_counter() - start
        noted: list[dict[str, Any]] = client.get_task_stream()[begun:]
    if fetched.rows != rows:
        raise SystemExit(f"{fetched.rows:,} rows instead of {rows:,}")
    times = [time for task in noted for time in task["startstops"]]
    worked = max(time["stop"] for time in times) - min(time["start"] for time in times)
    return Measured(worked, seconds)


def measure(workers: int, rows: int) -> Measured:
    """Return medians of some rounds, after one in which the workers import what they need."""
    with cluster(workers) as address:
        fetch(address, rows)
        rounds = [fetch(address, rows) for _ in range(ROUNDS)]
    return Measured(median(one.chunks for one in rounds), median(one.flow for one in rounds))


def main(rows: int) -> None:
    """Measure one and two workers with each service, and print a table."""
    with TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=120):
        size = write_pages(Path(folder), rows, PAGE_ROWS)
        lines = [f"{'':42}{'1 worker':>10}{'2 workers':>11}{'speed-up':>10}"]
        for service, wan in SERVICES.items():
            with served(Path(folder), rows, wan) as url:
                secrets = dict.fromkeys(("email", "password", "api_key", "api_code"), "benchmark")
                account = NudgescribeAccount.model_validate({"base_url": url, **secrets})
                account.save("benchmark", overwrite=True)
                one, two = measure(1, rows), measure(2, rows)
            for name, a, b in (("chunks", one.chunks, two.chunks), ("flow", one.flow, two.flow)):
                lines.append(f"{service:36}{name:6}{a:8.2f} s{b:9.2f} s{a / b:10.2f}")
    title = f"{rows:,} rows, {-(-rows // PAGE_ROWS)} pages, {size / 1e6:,.0f} MB"
    print("", title, "", *lines, sep="\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
