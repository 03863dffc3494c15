"""`nudgeflow up`: run Prefect with its UI, a sandbox, a worker and the deployments until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from time import sleep

from deployments.environment import keep_prefect_at
from nudgescribe.errors import NudgeflowError
from sandbox import extra

HOME = Path(".local")
DATA = HOME / "sandbox"
LAKE = HOME / "lake"
PREFECT_PORT = 4200
SANDBOX_PORT = 7878
PREFECT_URL = f"http://127.0.0.1:{PREFECT_PORT}"
SANDBOX = ("--rows-per-file", "1000", "--phase-seconds", "4", "--approve-after", "120")
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
NO_POSTGRESQL = "SQLite, since no PostgreSQL is installed that this user can run"
ONE_CONNECTION = ":memory:"
"""In an SQLite database's address, Prefect's server takes it to mean one connection for all jobs.
None of them finds the database locked by another then."""
PATIENT = {
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "15",
}
"""Prefect gives up on PostgreSQL after 5 and 10 seconds, which a busy machine takes, and its pool
keeps 5 connections, so that every burst of work makes new ones.
"""
RUNS_PER_CORE = 3
"""Flow runs at once; more only wait for each other, and for the server's SQLite."""


def up() -> None:
    """Run the stack until Ctrl-C, or until a part of it ends."""
    if not extra.is_installed():
        sys.exit(extra.MISSING)
    for port in (PREFECT_PORT, SANDBOX_PORT):
        _check_free(port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    keep_prefect_at(
        HOME / "prefect",
        PREFECT_PORT,
        # So that `--watch` shows logs, and with them plans and reports.
        PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED="true",
        PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED="true",
        # A service that waits longer for the database as it starts ends without a word.
        PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT="60",
        PREFECT_SERVER_DATABASE_TIMEOUT="60",
        # In memory, as by default, a restart would forget who holds slots of limits.
        PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="prefect.server.concurrency.lease_storage.filesystem",
    )
    with ExitStack() as stack:
        try:
            _run(stack)
        except KeyboardInterrupt:
            print("\nStopping.")
        except NudgeflowError as error:
            sys.exit(str(error))


def _run(stack: ExitStack) -> None:
    print("Starting Prefect and the sandbox; the first start takes half a minute.", flush=True)
    prefect, sandbox_url = _start_servers(stack)
    _set_up(sandbox_url)
    worker = _start_worker(stack)
    _export_first_run()
    print(_guide(sandbox_url), flush=True)
    while prefect.poll() is None and worker.poll() is None:
        sleep(0.5)
    sys.exit("A part of the stack has ended; the output above may say why.")


def _start_servers(stack: ExitStack) -> tuple[subprocess.Popen[bytes], str]:
    """Start Prefect and the sandbox; return Prefect's process and the sandbox's URL."""
    from deployments import local
    from deployments.postgresql import postgresql

    database = stack.enter_context(postgresql(HOME / "postgresql"))
    settings = {DATABASE: database, **PATIENT} if database else {DATABASE: _sqlite()}
    print(f"Prefect stores in {'PostgreSQL' if database else NO_POSTGRESQL}.", flush=True)
    prefect = stack.enter_context(local.prefect_server(PREFECT_PORT, **settings))
    sandbox_url = stack.enter_context(local.sandbox(DATA, SANDBOX_PORT, *SANDBOX))
    prefect.wait()
    return prefect.process, sandbox_url


def _sqlite() -> str:
    folder = (HOME / "prefect" / ONE_CONNECTION).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite+aiosqlite:///{folder}/prefect.db"


def _set_up(sandbox_url: str) -> None:
    """Seed the sandbox, set up Prefect's server, and deploy the flows."""
    from deployments import local, server
    from deployments.bootstrap import bootstrap
    from deployments.deploy import BlocksMissing, deploy
    from deployments.project import DEPLOYMENTS, TEMPLATES

    account = local.seed_once(DATA)
    # Everything but the blocks, which need no variables here.
    list(bootstrap({}))
    local.save_blocks(
        sandbox_url,
        account,
        local.sql_crm(HOME / "crm.db"),
        LAKE,
        calls_limit=server.CALLS,
        downloads_limit=server.DOWNLOADS,
    )
    os.environ["NUDGEFLOW_CAMPAIGN_ID"] = account.campaign_id
    os.environ["NUDGEFLOW_WORKSPACE_ID"] = account.workspace_id
    try:
        list(deploy(DEPLOYMENTS if DEPLOYMENTS.exists() else TEMPLATES / DEPLOYMENTS.name))
    except BlocksMissing as error:
        print(error, flush=True)  # the others can be tried


def _start_worker(stack: ExitStack) -> subprocess.Popen[bytes]:
    from deployments import local, server

    limit = RUNS_PER_CORE * (os.cpu_count() or 1)
    command = ("worker", "start", "--pool", server.POOL, "--limit", str(limit))
    return stack.enter_context(local.child("-m", "prefect", *command))


def _export_first_run() -> None:
    """Have run 1 in the lake, so that the report of the first refresh can compare."""
    from deployments import local
    from flows.export import export_messages

    account, lake = local.load_blocks()
    if lake.runs().empty:
        print("Fetching the messages of run 1 into the lake.", flush=True)
        export_messages(os.environ["NUDGEFLOW_CAMPAIGN_ID"], account, lake)


def _guide(sandbox_url: str) -> str:
    prefect = Path(sys.executable).with_name("prefect")
    return f"""
Prefect UI   {PREFECT_URL}
Sandbox      {sandbox_url}
The lake     {LAKE}

Start a refresh in the UI, or in a second terminal:
  export PREFECT_API_URL={PREFECT_URL}/api
  {prefect} deployment run campaign-refresh/refresh-now --watch

No schedule is on but that of resume-reviewed; `nudgeflow schedule` shows them.

While a refresh is awaiting review, its flow run is suspended. Approve the messages in the sandbox,
or wait: they are approved after two minutes, and resume-reviewed looks every five.

Ctrl-C ends all of it."""


def _check_free(port: int) -> None:
    with closing(socket.socket()) as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(f"Port {port} is in use: is another stack running?")


if __name__ == "__main__":  # a command in version 0.1
    sys.exit("This is `nudgeflow up` now.")
