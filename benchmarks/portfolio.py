"""Many small campaigns at once: refreshed by a worker's processes, or by forks of one, in turns.

python -m benchmarks.portfolio [CAMPAIGNS] [--rounds N] [--before CHECKOUT]

Prefect's server on SQLite, a worker and a sandbox run on this machine, as with `make up`. Each
round refreshes the same campaigns of 500 customers anew. CPU seconds are a campaign's, by what used
them.
--before adds an earlier version of the project, on a worker.
"""

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import Popen
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any

from deployments.environment import free_port, keep_prefect_at

ROOT = Path(__file__).parents[1]
CUSTOMERS = 500
RUNS_OF_WORKER = 3 * (os.cpu_count() or 1)
SECONDS_TO_SETTLE = 10.0
"""The server records task runs for as long after the last of them."""
TICKS = os.sysconf("SC_CLK_TCK")
KINDS = {
    "server start": "server",
    "uvicorn": "server",
    "sandbox serve": "sandbox",
    "worker start": "worker",
    "prefect.engine": "refreshes",
    "_workspace": "refreshes",
    "zygote": "refreshes",
    "--refresh": "portfolio",
}
"""What a command line holds, and what the table calls the process."""


@dataclass(frozen=True)
class Way:
    """Where campaigns are refreshed, and by which version of the project."""

    run_on: str
    checkout: Path = ROOT

    def start(self, *arguments: str) -> Popen[bytes]:
        """Start one of its processes."""
        environment = {**os.environ, "PYTHONPATH": str(self.checkout)}
        return Popen([sys.executable, *arguments], env=environment)  # noqa: S603


@dataclass(frozen=True)
class Measured:
    """Seconds until all campaigns were refreshed, and CPU seconds by kind of process."""

    wall: float
    cpu: Counter[str]


class Meter:
    """Adds up the CPU seconds of the processes that this one has started, while its block runs."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[str, float]] = {}
        self._done = Event()
        self._look()
        self._before = dict(self._used)
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def seconds(self) -> Counter[str]:
        """Return the seconds by kind of process."""
        total: dict[str, float] = {}
        for process, (kind, seconds) in self._used.items():
            _, before = self._before.get(process, ("", 0.0))
            total[kind] = total.get(kind, 0.0) + seconds - before
        return Counter[str](total)  # pyright: ignore[reportArgumentType]

    def _run(self) -> None:
        while not self._done.wait(0.2):
            self._look()

    def _look(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                stat = (process / "stat").read_text().rpartition(")")[2].split()
                command = (process / "cmdline").read_text().replace("\0", " ")
                ours = os.environ["PREFECT_HOME"] in (process / "environ").read_text()
            except OSError:
                continue
            kind = next((kind for text, kind in KINDS.items() if text in command), None)
            if ours and kind:
                seconds = (int(stat[11]) + int(stat[12])) / TICKS
                self._used[f"{process.name} {stat[19]}"] = kind, seconds


@contextmanager
def served(folder: Path, port: int, campaigns: int) -> Generator[None]:
    """Run the server and a sandbox with the campaigns, and save all that their refresh needs."""
    from deployments import local
    from sandbox import demo_customers, seed
    from sandbox.context import open_context
    from sandbox.settings import Settings

    with ExitStack() as stack:
        prefect = stack.enter_context(local.prefect_server(port))
        data = folder / "sandbox"
        data.mkdir()
        context = open_context(Settings(data=data))
        accounts = [seed.seed(context, CUSTOMERS) for _ in range(campaigns)]
        rows = list(demo_customers.customers(CUSTOMERS, demo_customers.PLANS_BEFORE))
        with (folder / "customers.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        options = ("--rows-per-file", "1000", "--approve-after", "0.1")
        url = stack.enter_context(local.sandbox(data, free_port(), *options))
        prefect.wait()
        _save(folder, url, accounts)
        yield


def _save(folder: Path, url: str, accounts: list[Any]) -> None:
    """Save the blocks, the portfolio's file and the deployment."""
    from prefect.client.orchestration import get_client

    from deployments import local, server
    from deployments.bootstrap import bootstrap
    from flows.refresh import campaign_refresh

    list(bootstrap({}))
    crm, lake = local.file_crm(folder / "customers.csv"), folder / "lake"
    limits = {"calls_limit": server.CALLS, "downloads_limit": server.DOWNLOADS}
    lines = ["campaigns:"]
    for number, seeded in enumerate(accounts):
        account, _ = local.save_blocks(url, seeded, crm, lake, **limits)
        account.save(f"account-{number}")
        lines.append(f"- {{campaign_id: {seeded.campaign_id}, account: account-{number}}}")
    (folder / "portfolio.yaml").write_text("\n".join(lines))
    with get_client(sync_client=True) as client:
        client.create_deployment(
            client.create_flow(campaign_refresh),
            "refresh-for-portfolio",
            work_pool_name=server.POOL,
            entrypoint="flows.refresh.campaign_refresh",
            pull_steps=[],
        )


def refresh(file: str, run_on: str) -> None:
    """Refresh the portfolio, with this process's version of the project."""
    from inspect import signature

    from blocks import DataLake, FileCrm, NudgescribeAccount
    from flows.options import RefreshOptions
    from flows.portfolio import portfolio_refresh

    where: dict[str, Any] = {"run_on": run_on}
    if "run_on" not in signature(portfolio_refresh.fn).parameters:
        where = {}  # an earlier version, which knows workers alone
    state = portfolio_refresh(
        NudgescribeAccount.load("main"),
        FileCrm.load("main"),
        DataLake.load("main"),
        portfolio_file=file,
        options=RefreshOptions(review="suspend"),
        period="run",
        return_state=True,
        **where,
    )
    print(f"{state.name} {state.message or ''}", flush=True)


def measure(way: Way, folder: Path) -> Measured:
    """Refresh all campaigns once."""
    from deployments import server

    command = ("worker", "start", "--pool", server.POOL, "--limit", str(RUNS_OF_WORKER))
    # As with `make up`, a worker is there already when the portfolio begins.
    worker = way.start("-m", "prefect", *command) if way.run_on == "workers" else None
    try:
        sleep(SECONDS_TO_SETTLE)
        file = str(folder / "portfolio.yaml")
        with Meter() as meter:
            start = perf_counter()
            way.start(__file__, "--refresh", file, way.run_on).wait()
            wall = perf_counter() - start
            sleep(SECONDS_TO_SETTLE)
        return Measured(wall, meter.seconds())
    finally:
        if worker:
            worker.terminate()
            worker.wait()


def table(runs: dict[str, list[Measured]], campaigns: int) -> str:
    """Return the medians of all rounds."""
    kinds = list(dict.fromkeys(KINDS.values()))
    lines = [f"{'':16}{'wall s':>9}{'CPU s':>9}" + "".join(f"{kind:>11}" for kind in kinds)]
    for name, rounds in runs.items():
        cpu = [median(each.cpu[kind] for each in rounds) / campaigns for kind in kinds]
        wall = median(each.wall for each in rounds)
        lines.append(
            f"{name:16}{wall:9.1f}{sum(cpu):9.2f}" + "".join(f"{used:11.2f}" for used in cpu)
        )
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    """Measure the ways in turns; print each run and a table."""
    ways = {"workers": Way("workers"), "this machine": Way("this machine")}
    if options.before:
        ways["before"] = Way("workers", options.before.resolve())
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    with TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        keep_prefect_at(folder / "prefect", port)
        with served(folder, port, options.campaigns):
            for number in range(options.rounds):
                for way in [*ways][number % len(ways) :] + [*ways][: number % len(ways)]:
                    runs[way].append(measure(ways[way], folder))
                    wall, load = runs[way][-1].wall, os.getloadavg()[0]
                    print(f"round {number + 1}  {way:16}{wall:8.1f} s, load {load:.1f}", flush=True)
    print(f"\n{options.campaigns} campaigns\n{table(runs, options.campaigns)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--refresh"]:
        refresh(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("campaigns", nargs="?", type=int, default=20, metavar="CAMPAIGNS")
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--before", type=Path, metavar="CHECKOUT")
        main(parser.parse_args())
