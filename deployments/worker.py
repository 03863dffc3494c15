"""A worker in a container: `python -m deployments.worker` with `prefect worker start`'s options.

A worker of Prefect that is stopped kills its flow runs, which stay Running until somebody notices.
Here they are asked to stop first, and are run again.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.states import AwaitingRetry

FLOW_RUN = b"PREFECT__FLOW_RUN_ID="
GRACE_SECONDS = 40.0
"""For flow runs to note how far they have come; the container has a minute in all."""


class Stopped(Exception):
    """SIGTERM has come."""


def main() -> None:
    """Run a worker until SIGTERM, then stop its flow runs and have them run again."""
    worker = subprocess.Popen([sys.executable, "-m", "prefect", "worker", "start", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, _raise_stopped)
    try:
        sys.exit(worker.wait())
    except Stopped:
        # It neither starts other flow runs meanwhile nor says of these that they crashed.
        worker.send_signal(signal.SIGSTOP)
        stopped = _stop_flow_runs()
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGCONT)
        worker.wait()
        for flow_run in stopped:
            _reschedule(flow_run)


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Stopped


def _stop_flow_runs() -> list[UUID]:
    """Return the flow runs that were here; their processes have ended, or the time is up."""
    running = dict(_find_flow_runs())
    for process in running:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process, signal.SIGTERM)
    end = monotonic() + GRACE_SECONDS
    while monotonic() < end and running.keys() & dict(_find_flow_runs()).keys():
        sleep(0.2)
    return list(running.values())


def _find_flow_runs() -> Iterator[tuple[int, UUID]]:
    """Yield each process that leads a flow run, and the flow run."""
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        try:
            leads = os.getsid(process) == process
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        ids = [each for each in variables if each.startswith(FLOW_RUN)]
        if ids and leads:
            yield process, UUID(ids[0].removeprefix(FLOW_RUN).decode())


def _reschedule(flow_run: UUID) -> None:
    """Have a flow run go on elsewhere, unless it has ended, sleeps or is being cancelled."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run).state
        if state and (state.is_running() or state.is_pending() or state.is_crashed()):
            again = AwaitingRetry(message="Its worker was stopped; the next one goes on.")
            client.set_flow_run_state(flow_run, again, force=True)


if __name__ == "__main__":
    main()
