"""Flow runs for automations to watch, each in a process of its own."""

import os
import subprocess
import sys
from threading import Event
from uuid import UUID

from prefect import flow
from prefect.flow_engine import run_flow
from prefect.flow_runs import suspend_flow_run

from tests.support.deployed import flow_run


@flow(name="campaign-refresh")
def watched(then: str) -> None:
    """Works until it is killed, or suspends itself, or ends."""
    if then == "work":
        Event().wait()
    if then == "sleep":
        suspend_flow_run(timeout=3600)


def work(run_id: UUID, **environment: str) -> "subprocess.Popen[bytes]":
    """What a worker's process does with a flow run."""
    command = [sys.executable, "-m", __name__, str(run_id)]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    run_flow(watched, flow_run=flow_run(UUID(sys.argv[1])), return_type="state")
