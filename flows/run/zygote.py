"""The process that has imported what flow runs need, and forks one for each of them.

`flows.run.forks` starts it, and sends it the end of a socket for each flow run: the fork reads its
id there, answers with its process id, and leaves the socket open for as long as it lives.
"""

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from socket import recv_fds, socket
from uuid import UUID

IMPORTED = (
    "prefect.flow_engine",
    "prefect.utilities.visualization",
    "anyio._backends._asyncio",
    "flows.refresh",
    "iso4217",
    "pandas",  # Arrow imports it for its first conversion
    "polars",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.parquet",
)
"""What a refresh imports, also with its first use."""


def main() -> None:
    """Fork for each socket until whoever sends them has ended."""
    control = socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Only Linux's libraries outlive a fork.
    if sys.platform == "linux":
        prepare()
    # Nobody waits for the forks: those who sent the sockets see them closed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while ends := recv_fds(control, 1, 1)[1]:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            # It ends as any process does, with all that is to be done at its exit.
            return work(socket(fileno=ends[0]))
        os.close(ends[0])
    return None


def prepare() -> None:
    """Import all that is imported for a flow run."""
    from prefect.plugins import load_prefect_collections

    load_prefect_collections()
    for module in IMPORTED:
        import_module(module)


def work(sender: socket) -> None:
    """Work on the flow run that the sender names, as Prefect's process workers do."""
    with sender.makefile() as lines:
        flow_run_id = lines.readline().strip()
    os.environ["PREFECT__FLOW_RUN_ID"] = flow_run_id
    # Whoever sent it may have been killed since: the flow run goes on.
    with suppress(OSError):
        sender.sendall(f"{os.getpid()}\n".encode())

    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow_and_flow_run, run_flow

    with handle_engine_signals(UUID(flow_run_id)):
        flow_run, flow = load_flow_and_flow_run(UUID(flow_run_id))
        run_flow(flow, flow_run=flow_run)


if __name__ == "__main__":
    main()
