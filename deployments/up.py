"""`make up`: Prefect with its UI, a sandbox, a worker and the deployments, until Ctrl-C."""

import os
import signal
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from time import sleep

from deployments.environment import keep_prefect_at

HOME = Path(".local")
PREFECT_PORT = 4200
SANDBOX_PORT = 7878
PREFECT_URL = f"http://127.0.0.1:{PREFECT_PORT}"
SANDBOX = ("--rows-per-file", "1000", "--phase-seconds", "4", "--approve-after", "120")
SERVER_SECONDS = 120.0
RUNS_A_CORE = 3
"""More flow runs at once only wait for each other, and for the server's SQLite."""


def main() -> None:
    for port in (PREFECT_PORT, SANDBOX_PORT):
        _check_free(port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    keep_prefect_at(
        HOME / "prefect",
        PREFECT_API_URL=f"{PREFECT_URL}/api",
        # In memory, as by default, it would be forgotten at a restart who holds slots of limits.
        PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="prefect.server.concurrency.lease_storage.filesystem",
    )
    with ExitStack() as stack:
        try:
            _run(stack)
        except KeyboardInterrupt:
            print("\nStopping.")


def _run(stack: ExitStack) -> None:
    from deployments import local, server
    from deployments.bootstrap import bootstrap
    from deployments.deploy import deploy

    data = HOME / "sandbox"
    print("Starting Prefect and the sandbox; the first start takes half a minute.", flush=True)
    prefect = stack.enter_context(
        local.child("-m", "prefect", "server", "start", "--port", str(PREFECT_PORT))
    )
    url = stack.enter_context(local.sandbox(data, SANDBOX_PORT, *SANDBOX))
    local.wait_for(f"{PREFECT_URL}/api/health", prefect, SERVER_SECONDS)
    account = local.seeded_once(data)
    # Everything but the blocks, which need no variables here.
    list(bootstrap({}))
    local.save_blocks(
        url,
        account,
        local.sql_crm(HOME / "crm.db"),
        HOME / "lake",
        calls_limit=server.CALLS,
        downloads_limit=server.DOWNLOADS,
    )
    os.environ["NUDGEFLOW_CAMPAIGN_ID"] = account.campaign_id
    os.environ["NUDGEFLOW_WORKSPACE_ID"] = account.workspace_id
    list(deploy())
    command = (
        "worker",
        "start",
        "--pool",
        server.POOL,
        "--limit",
        str(RUNS_A_CORE * (os.cpu_count() or 1)),
    )
    worker = stack.enter_context(local.child("-m", "prefect", *command))
    print(
        f"\nPrefect UI   {PREFECT_URL}\nSandbox      {url}\n"
        f"The lake     {HOME / 'lake'}\n\n"
        f"Start a refresh in the UI, or in a second terminal:\n"
        f"  PREFECT_API_URL={PREFECT_URL}/api .venv/bin/prefect deployment run "
        f"campaign-refresh/ad-hoc --watch\n\n"
        f"While its messages are reviewed it sleeps. Approve them in the sandbox, or wait: they\n"
        f"approve themselves in two minutes, and resume-reviewed looks every five.\n\n"
        f"Ctrl-C ends all of it.",
        flush=True,
    )
    while prefect.poll() is None and worker.poll() is None:
        sleep(0.5)
    sys.exit("A part of the stack has ended; the output above may say why.")


def _check_free(port: int) -> None:
    with closing(socket.socket()) as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(f"Port {port} is in use: is another stack running?")


if __name__ == "__main__":
    main()
