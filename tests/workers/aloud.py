"""A process that runs flows one after the other and says all there is to be said: each library's
log at DEBUG, each error with its traceback, each result.

It reads a job a line. Nothing is private by its umask; files of the lake that others could read
for a moment are named in the file `READABLE`.
"""

import json
import os
import sys
import traceback
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY
from pydantic import BaseModel

from blocks import NudgescribeAccount
from nudgescribe.client import NudgescribeClient
from nudgescribe.retry import RetryPolicy
from tests.chaos.zygote import hurry
from tests.support import prefect_servers
from tests.support.deployed import flow_run
from tests.support.disks import Disk

READABLE = "readable"
PRIVATE = ("/staging/", "/quarantine/", "/refreshes/")
QUICK = RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.02)


class Job(BaseModel):
    """A flow run, worked on where no file can be written if the disk is `full`."""

    flow: str
    run: str
    full: bool = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Looks at private files at the moments when they get another name or mode."""
    if event in ("os.rename", "os.link", "os.chmod"):
        path = os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else ""
        if any(place in path for place in PRIVATE) and (mode := os.stat(path).st_mode) & 0o077:
            seen = os.open(READABLE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(seen, f"{event} {path} {mode & 0o777:o}\n".encode())
            os.close(seen)


def impatient() -> None:
    real = NudgescribeAccount.get_client

    def get_client(self: NudgescribeAccount, **options: Any) -> NudgescribeClient:
        return real(self, retry=QUICK, call_seconds=5, page_seconds=5, **options)

    NudgescribeAccount.get_client = get_client  # type: ignore[method-assign]


def work(job: Job) -> None:
    module, _, name = job.flow.partition(":")
    flow = getattr(import_module(module), name)
    try:
        with Disk(Path(), mounted=False).full() if job.full else nullcontext():
            print(repr(run_flow(flow, flow_run=flow_run(job.run), return_type="result")))
    except (Exception, BaseException) as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exception(error)
        print(repr(error), error.args, vars(error))
    with get_client(sync_client=True) as client:
        print(repr(client.read_flow_run(job.run)))


def main(answers: int) -> None:
    os.umask(0)
    sys.addaudithook(watch)
    impatient()
    hurry()
    with prefect_servers.impatient({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for line in sys.stdin:
            work(Job.model_validate(json.loads(line)))
            sys.stdout.flush()
            os.write(answers, b"done\n")


if __name__ == "__main__":
    assert Path.cwd() != Path(__file__).parents[2]
    main(int(sys.argv[1]))
