"""Concurrency limits: ours against Prefect's own, around each call and around chunks of calls.

python -m benchmarks.limits [CALLS]

First one process makes the calls with 16 threads, under a limit that is never reached: what a
limit costs. Then two processes share a limit of 4: whether it holds, and how long a thread waits
at most. A call does nothing for 10 ms. Prefect's server is a local one with SQLite; with its own
limit around each call, only a tenth of the calls are made, as they take so long.
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from time import perf_counter, sleep
from typing import Any
from uuid import uuid4

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from benchmarks.measuring import draw
from blocks.limits import get_shared_limit

CALLS = 3_000
THREADS = 16
CALL_SECONDS = 0.01
CHUNK = 100
SHARED = 4
PROCESSES = 2
SPAWN = get_context("spawn")

Slot = Callable[[str], AbstractContextManager[None]]


def prefects_own(limit: str) -> AbstractContextManager[None]:
    """Return a context that holds a slot by Prefect's own way."""
    return concurrency(limit, strict=True, lease_duration=60, raise_on_lease_renewal_failure=False)


WAYS: dict[str, tuple[Slot, int, int]] = {
    "no limit": (lambda limit: nullcontext(), 1, 1),
    "ours, each call": (lambda limit: get_shared_limit(limit).slot(), 1, 1),
    "Prefect's, each call": (prefects_own, 1, 10),
    f"Prefect's, each {CHUNK} calls": (prefects_own, CHUNK, 1),
}
"""How to hold a slot, how many calls are made with it, and the divisor of all calls."""


class Meter:
    """Counts the calls in progress in all processes."""

    def __init__(self) -> None:
        self._now, self._most = SPAWN.Value("i", 0), SPAWN.Value("i", 0)

    def call(self) -> None:
        """Make a call: count it, and do nothing for CALL_SECONDS."""
        with self._now.get_lock():
            self._now.value += 1
            self._most.value = max(self._most.value, self._now.value)
        sleep(CALL_SECONDS)
        with self._now.get_lock():
            self._now.value -= 1

    @property
    def most(self) -> int:
        """Return the most calls that were in progress at any moment."""
        return self._most.value


@dataclass
class Share:
    """What one process measured, times in seconds."""

    wall: float = 0.0
    requests: int = 0
    waits: list[float] = field(default_factory=list[float])


def work(way: str, limit: str, calls: int, meter: Meter, start: Any, results: Any) -> None:
    """Make the calls in this process, once all processes are ready."""
    hold, size, _ = WAYS[way]
    share = Share()
    count_requests(share)

    def chunk(_: int) -> None:
        asked = perf_counter()
        with hold(limit):
            share.waits.append(perf_counter() - asked)
            for _ in range(size):
                meter.call()

    start.wait()
    begun = perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(chunk, range(calls // size)))
    share.wall = perf_counter() - begun
    results.put(share)


def count_requests(share: Share) -> None:
    """Count this process's requests to Prefect's API; its events go over a websocket."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def counted(self: httpx.Client, *arguments: Any, **options: Any) -> httpx.Response:
        share.requests += 1
        return send(self, *arguments, **options)

    async def counted_async(
        self: httpx.AsyncClient, *arguments: Any, **options: Any
    ) -> httpx.Response:
        share.requests += 1
        return await send_async(self, *arguments, **options)

    httpx.Client.send = counted  # type: ignore[method-assign]
    httpx.AsyncClient.send = counted_async  # type: ignore[method-assign]


def measure(way: str, processes: int, slots: int, calls: int) -> tuple[Meter, Sequence[Share]]:
    """Make the calls in new processes that share a new limit."""
    limit = f"benchmark-{uuid4()}"
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=limit, limit=slots)
        )
    meter, start, results = Meter(), SPAWN.Barrier(processes), SPAWN.Queue()
    arguments = (way, limit, calls // processes, meter, start, results)
    workers = [SPAWN.Process(target=work, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    shares = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return meter, shares


def table(processes: int, slots: int, calls: int) -> dict[str, float]:
    """Measure each way, and print a row for each; return the seconds of 1,000 calls."""
    seconds: dict[str, float] = {}
    print(f"\n{processes} x {THREADS} threads, limit {slots}")
    print(f"{'':24}{'calls':>8}{'wall s':>8}{'requests':>10}{'beyond':>8}{'longest wait s':>16}")
    for way, (_, _, divisor) in WAYS.items():
        made = calls // divisor
        meter, shares = measure(way, processes, slots, made)
        wall = max(share.wall for share in shares)
        requests = sum(share.requests for share in shares)
        wait = max(max(share.waits) for share in shares)
        beyond = max(0, meter.most - slots)
        print(f"{way:24}{made:8,}{wall:8.1f}{requests:10,}{beyond:8}{wait:16.2f}", flush=True)
        seconds[way] = wall / made * 1000
    return seconds


def main() -> None:
    """Measure one process, then several that share a limit."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    with prefect_test_harness(server_startup_timeout=120):
        os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
        os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
        seconds = table(1, THREADS, calls)
        table(PROCESSES, SHARED, calls)
    draw("limits", "1,000 calls under a limit that is never reached", seconds, "s")


if __name__ == "__main__":
    main()
