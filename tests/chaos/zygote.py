"""A process that has imported everything and forks: a flow run without the seconds of a start.

It reads a job a line, runs it in a child, and answers with the child's exit code.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import docker  # noqa: F401 - each flow run would import them
import fastapi  # noqa: F401
import prefect.cli.flow_run  # noqa: F401 - and each retry this
import ray  # noqa: F401
from prefect import tags
from prefect.cli import app
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY
from prefect.tasks import Task
from pydantic import BaseModel

import blocks.rerun
import flows.refresh
import flows.run.fetch
import tasks.customers.upload
import tasks.export.run
from blocks import CampaignRerun
from flows.options import RefreshOptions
from flows.run.zygote import prepare
from nudgescribe.retry import PollPolicy
from tasks.ui.charts import horizontal_bars
from tests.chaos.effects import Moment, Watch
from tests.support.prefect_servers import impatient

ENTRYPOINT = "flows/refresh.py:campaign_refresh"


class Job(BaseModel):
    """A flow run to begin, or the one to `retry`; `struck` is killed when `effect` is at `moment`,
    the flow run itself unless it is another process.
    """

    campaign_id: str
    name: str
    blocks: dict[str, Any]
    log: Path
    seen: Path
    retry: str | None = None
    options: RefreshOptions = RefreshOptions()
    effect: str | None = None
    moment: Moment = "before"
    struck: Path | None = None


def work(job: Job) -> None:
    """Runs the flow in this process, as its command line would."""
    struck = False

    def at(effect: str, moment: Moment) -> None:
        nonlocal struck
        if (effect, moment) == (job.effect, job.moment) and not struck:
            struck = True
            os.kill(int(job.struck.read_text()) if job.struck else os.getpid(), signal.SIGKILL)

    watch = Watch(at)
    watch.install()
    hurry()
    try:
        with impatient({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            if job.retry:
                sys.argv[1:] = ["flow-run", "retry", job.retry, "--entrypoint", ENTRYPOINT]
                app()
            else:
                with tags(job.name):
                    flows.refresh.campaign_refresh(
                        job.campaign_id, **job.blocks, options=job.options
                    )
    finally:
        job.seen.write_text(json.dumps({"seen": watch.seen, "struck": struck}))


def hurry() -> None:
    """Small numbers stand for big ones: several uploads, several chunks, and short waits."""
    tasks.customers.upload.ROWS_SENT = 125
    blocks.rerun.PATIENCE_SECONDS = 2
    tasks.export.run.ROWS_A_CHUNK = 100
    CampaignRerun.poll_policy = flows.run.fetch.POLL_POLICY = PollPolicy(
        first_wait=0.02, longest_wait=0.2
    )
    # Between two looks the service has time to write a page.
    tasks.export.run.POLL_POLICY = PollPolicy(first_wait=0.05, longest_wait=0.2)
    for module in list(sys.modules.values()):
        if module.__name__.startswith("tasks."):
            for each in vars(module).values():
                if isinstance(each, Task) and each.retries:
                    each.retry_delay_seconds = [0.2]


def child(job: Job) -> int:
    with job.log.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        work(job)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    prepare()
    # It imports what draws, and finds the fonts.
    horizontal_bars({"a": 1, "b": 2})
    print("ready", flush=True)
    for line in sys.stdin:
        job = Job.model_validate_json(line)
        if not (pid := os.fork()):
            code = child(job)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
