"""Flow runs that this process starts itself, each in a process of its own.

The processes are forks of one that has imported everything: on a worker, a small refresh takes
longer to start than to run. What kills one of them leaves the others alone.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from select import select
from socket import send_fds, socket, socketpair
from uuid import UUID

from loky import cpu_count
from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings
from prefect.states import Cancelled

from nudgescribe.bases import Closing

MOST = 3 * cpu_count()
"""Flow runs at once; more only wait for each other."""
OF_A_FLOW_RUN = "PREFECT__"
"""Begins the variables that Prefect's workers set for one flow run."""


class Forks(Closing):
    """Works on flow runs of deployments. A context manager: those that are running then go on."""

    def __init__(self) -> None:
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket | None = None
        self._running: dict[str, tuple[socket, int]] = {}
        self.stopped = set[str]()

    def start(self, flow_run: str) -> None:
        """Start a process for a flow run, which is Pending."""
        ours, theirs = socketpair()
        pid = ""
        # If it or the zygote is killed at once, its socket is closed, and it counts as crashed.
        with suppress(OSError), ours.makefile() as lines:
            with theirs:
                send_fds(self._open_control(), [b"\0"], [theirs.fileno()])
            ours.sendall(f"{flow_run}\n".encode())
            pid = lines.readline()
        self._running[flow_run] = ours, int(pid or 0)

    def wait(self, seconds: float) -> set[str]:
        """Return the flow runs whose processes have ended; wait up to `seconds` for the first."""
        sockets = {sender: flow_run for flow_run, (sender, _) in self._running.items()}
        ended = {sockets[each] for each in select(list(sockets), [], [], seconds)[0]}
        for flow_run in ended:
            self._running.pop(flow_run)[0].close()
        return ended

    def stop(self, flow_run: str) -> None:
        """Ask the process of a flow run, if it is one of these, to end."""
        _, pid = self._running.get(flow_run, (None, 0))
        if pid and flow_run not in self.stopped:
            self.stopped.add(flow_run)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def close(self) -> None:
        """End the zygote."""
        for sender, _ in self._running.values():
            sender.close()
        if self._control and self._zygote:
            self._control.close()
            self._zygote.wait()

    def _open_control(self) -> socket:
        if self._control is None or self._zygote is None or self._zygote.poll() is not None:
            self._control, theirs = socketpair()
            with theirs:
                command = [sys.executable, "-m", "flows.run.zygote"]
                self._zygote = subprocess.Popen(command, stdin=theirs.fileno(), env=_environment())  # noqa: S603
        return self._control


def cancel(flow_run_id: str) -> None:
    """Do what Prefect's workers do once the process of a flow run that is Cancelling has ended."""
    state = Cancelled()
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(UUID(flow_run_id))
        client.set_flow_run_state(flow_run.id, state, force=True)
        assert flow_run.deployment_id
        entrypoint = client.read_deployment(flow_run.deployment_id).entrypoint
    assert entrypoint
    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    for hook in flow.on_cancellation_hooks:
        try:
            hook(flow, flow_run, state)
        except Exception as error:
            logger = get_run_logger()
            logger.error("The hook of flow run %s broke: %s", flow_run_id, type(error).__name__)


def _environment() -> dict[str, str]:
    """Return the variables of the processes: this one's, with the settings in force here."""
    shared = {
        name: value for name, value in os.environ.items() if not name.startswith(OF_A_FLOW_RUN)
    }
    return {
        **shared,
        **get_current_settings().to_environment_variables(exclude_unset=True),
        f"{OF_A_FLOW_RUN}ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
    }
