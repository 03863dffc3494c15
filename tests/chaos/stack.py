"""A refresh that runs as people run it: deployed, and started by a worker."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectAlreadyExists

from blocks.storage.manifest import campaign_partition
from flows.refresh import campaign_refresh
from nudgescribe.contract import Status
from tasks.refresh.register import Register
from tests.chaos.rig import Story
from tests.chaos.server import PrefectServer, kill
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
POOL = "chaos"
SECONDS = 90.0


class Stack:
    """A company's refresh as a deployment, and a worker that has started it."""

    def __init__(self, story: Story, server: PrefectServer) -> None:
        self.story = story
        self.server = server
        with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        loaded = campaign_refresh.from_source(str(ROOT), "flows/refresh.py:campaign_refresh")
        self._deployment = loaded.deploy(
            story.name, work_pool_name=POOL, print_next_steps=False, ignore_warnings=True
        )
        self.start_worker()
        self.refresh()

    def start_worker(self) -> None:
        self.worker = self.server.prefect("worker", "start", "--pool", POOL)

    def refresh(self) -> None:
        """The next run of the deployment."""
        story = self.story
        parameters = {"campaign_id": story.campaign_id, **story.references}
        run_deployment(self._deployment, parameters=parameters, timeout=0, tags=[story.name])

    def retry(self) -> None:
        """What a person types when the newest flow run has ended badly."""
        command = ("flow-run", "retry", str(self.newest().id))
        assert self.server.prefect(*command).wait(SECONDS) == 0

    def approve(self) -> None:
        self.until_campaign_is(Status.READY_FOR_REVIEW)
        self.story.company.sandbox.approve(self.story.campaign_id)

    def until_campaign_is(self, status: Status) -> None:
        until(lambda: len(runs := self.story.company.history()) > 1 and runs[0].status == status)

    def until_state_is(self, *names: str) -> str:
        """The newest flow run's state, as soon as it is one of these."""
        until(lambda: self.newest().state_name in names)
        return self.newest().state_name or ""

    def newest(self) -> FlowRun:
        return max(self.story.flow_runs(), key=lambda run: str(run.created))

    @property
    def process(self) -> int:
        """The process that refreshes the campaign."""
        story = self.story
        _, entry = Register(story.lake.files, campaign_partition(story.campaign_id)).newest()
        assert entry is not None
        return entry.pid

    def kill_process(self) -> None:
        """`kill -9` of the flow run."""
        os.kill(self.process, signal.SIGKILL)
        self.until_process_ends()

    def until_process_ends(self) -> None:
        # Its worker may be gone, and nobody there to collect it: then it has a folder, but no file.
        until(lambda pid=self.process: not Path(f"/proc/{pid}/exe").exists())

    def kill_worker(self) -> None:
        """`kill -9` of the worker; the flow run it has started goes on."""
        self.worker.kill()
        self.worker.wait()


@contextmanager
def running(story: Story, server: PrefectServer) -> Iterator[Stack]:
    """A refresh that has begun."""
    stack = Stack(story, server)
    try:
        yield stack
    finally:
        kill(stack.worker)
