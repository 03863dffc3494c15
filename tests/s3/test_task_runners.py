"""Chunks of pages worked on by the processes of a Dask cluster or a local Ray, into a lake."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_WR, create_connection, socket
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Lock, Thread

import pytest
from distributed import Client

from blocks import DataLake
from tasks.export import run as tasks
from tests.s3 import campaign
from tests.s3.campaign import Published
from tests.support.clock import until
from tests.support.http_server import DROPPED, Reply, serving

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
PAGES, PAGE_ROWS, CHUNK_PAGES = 21, 10_000, 3
CHUNKS = PAGES // CHUNK_PAGES
BYTES_A_CHUNK = 40_000
"""What may pass the scheduler for a chunk: the task and its context, and what became of it."""

# A worker that cannot work would keep the flow waiting for ever.
pytestmark = pytest.mark.timeout(150)


@dataclass(frozen=True)
class Cluster:
    """A scheduler and two workers of one thread each, all processes of their own."""

    address: str
    workers: list[subprocess.Popen[bytes]]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    where = tmp_path / "scheduler.json"
    quiet = {"PREFECT_LOGGING_LEVEL": "ERROR", "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        command += ["--scheduler-file", str(where), "--host", "127.0.0.1"]
        command += ["--dashboard-address", "127.0.0.1:0"]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **quiet})
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    with ExitStack() as stack:
        scheduler = start("dask_scheduler", "--port", "0")
        until(where.exists, scheduler)
        alone = ["--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path)]
        workers = [start("dask_worker", *alone) for _ in range(2)]
        one = Cluster(json.loads(where.read_text())["address"], workers)
        with watching(one) as client:
            client.wait_for_workers(len(workers), timeout=SECONDS)
        yield one


def watching(cluster: Cluster) -> Client:
    """A client for the test only: the flow must not find it and take it for its own."""
    return Client(cluster.address, set_as_default=False)


class Counting(ThreadingTCPServer):
    """Passes on what the flow and the scheduler say to each other, and counts it."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.port = port
        self.passed = 0
        self.lock = Lock()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"


class Passing(BaseRequestHandler):
    server: Counting

    def handle(self) -> None:
        with create_connection(("127.0.0.1", self.server.port)) as scheduler:
            back = Thread(target=self.passes, args=(scheduler, self.request))
            back.start()
            self.passes(self.request, scheduler)
            back.join()

    def passes(self, source: socket, target: socket) -> None:
        with suppress(OSError):
            while some := source.recv(65536):
                with self.server.lock:
                    self.server.passed += len(some)
                target.sendall(some)
            target.shutdown(SHUT_WR)


@contextmanager
def counting(cluster: Cluster) -> Iterator[Counting]:
    with Counting(cluster.port) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def export(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", CHUNK_PAGES * PAGE_ROWS)
    with serving(Published(PAGES, PAGE_ROWS)) as one:
        yield one


def test_chunks_are_worked_on_by_all_workers(
    cluster: Cluster, export: Published, lake: DataLake
) -> None:
    blocks = campaign.save("dask", export, lake)
    with counting(cluster) as scheduler, watching(cluster) as client:
        client.get_task_stream()  # begins to note
        done = campaign.fetch(blocks, task_runner="dask", cluster=scheduler.address)
        stream = client.get_task_stream()
    assert done.rows == PAGES * PAGE_ROWS
    assert campaign.is_whole(lake, PAGES * PAGE_ROWS)
    assert [each["key"].partition("-")[0] for each in stream] == ["fetch_chunk"] * CHUNKS
    assert len({each["worker"] for each in stream}) == 2
    assert export.downloaders == {worker.pid for worker in cluster.workers}
    assert scheduler.passed < CHUNKS * BYTES_A_CHUNK
    assert sum(map(len, export.states[0])) > 10 * CHUNKS * BYTES_A_CHUNK


def test_export_survives_the_kill_of_a_worker(
    cluster: Cluster, export: Published, lake: DataLake
) -> None:
    blocks = campaign.save("killed", export, lake)
    victims: list[int] = []

    def kill(content: bytes) -> Reply:
        victims.append(export.processes[number][-1])
        os.kill(victims[-1], signal.SIGKILL)
        return DROPPED

    number = PAGES // 2 + 1
    export.page_faults[number] = [kill]
    done = campaign.fetch(blocks, task_runner="dask", cluster=cluster.address)
    assert done.rows == PAGES * PAGE_ROWS
    assert campaign.is_whole(lake, PAGES * PAGE_ROWS)
    (victim,) = (worker for worker in cluster.workers if worker.poll() is not None)
    assert (victim.pid, victim.returncode) == (victims[0], -signal.SIGKILL)
    first, second = export.processes[number]
    assert (first == victim.pid, second == victim.pid) == (True, False)


def test_ray_fetches_what_threads_fetch(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, page_rows = 8, 1000
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 2 * page_rows)
    with serving(Published(pages, page_rows)) as export:
        for runner in ("threads", "ray"):
            lake = DataLake(root=str(tmp_path / runner))
            blocks = campaign.save(runner, export, lake)
            assert campaign.fetch(blocks, task_runner=runner).rows == pages * page_rows
            assert campaign.is_whole(lake, pages * page_rows)
            assert (os.getpid() in export.downloaders) == (runner == "threads")
            export.processes.clear()
