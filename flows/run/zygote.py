"""The process that has imported what flow runs need, and forks one for each of them.

`flows.run.forks` starts it, and sends it the end of a socket for each flow run: the fork reads its
job there, answers with its process id, and leaves the socket open for as long as it lives.
"""

import os
import signal
import sys
from importlib import import_module
from socket import recv_fds, socket
from uuid import UUID

from nudgescribe.bases import Frozen

IMPORTED = ("prefect.flow_engine", "flows.refresh", "polars", "pyarrow.parquet", "pyarrow.compute")


class Job(Frozen):
    """The flow run to work on, and the variables of its process."""

    flow_run: str
    environment: dict[str, str]


def main() -> None:
    """Fork for each job until whoever sends them has ended."""
    control = socket(fileno=os.dup(0))
    # Only Linux's libraries outlive a fork.
    if sys.platform == "linux":
        _prepare()
    # Nobody waits for the forks: those who sent the jobs see that their sockets are closed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while ends := recv_fds(control, 1, 1)[1]:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            # It ends as any process does, with all that is to be done at its exit.
            return work(socket(fileno=ends[0]))
        os.close(ends[0])
    return None


def _prepare() -> None:
    from prefect.plugins import load_prefect_collections

    load_prefect_collections()
    for module in IMPORTED:
        import_module(module)


def work(sender: socket) -> None:
    """Work on the sender's job, as a process of Prefect's process worker does."""
    job = Job.model_validate_json(sender.makefile().readline())
    os.environ.clear()
    os.environ.update(job.environment)
    sender.sendall(f"{os.getpid()}\n".encode())

    from prefect.context import SettingsContext, get_settings_context
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow_and_flow_run, run_flow
    from prefect.settings import Settings

    # The zygote's own are those of an earlier flow run.
    profile = get_settings_context().profile
    with (
        SettingsContext(profile=profile, settings=Settings()),
        handle_engine_signals(UUID(job.flow_run)),
    ):
        flow_run, flow = load_flow_and_flow_run(UUID(job.flow_run))
        run_flow(flow, flow_run=flow_run)


if __name__ == "__main__":
    main()
