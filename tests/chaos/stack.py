"""A refresh that runs as people run it: deployed, and started by a worker."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flows.refresh import campaign_refresh
from nudgescribe.contract import Status
from tests.chaos.rig import Story
from tests.support import deployed
from tests.support.clock import until
from tests.support.deployed import Workers, on_pool, process_of, until_it_ends
from tests.support.prefect_servers import PrefectServer


@dataclass
class Stack:
    """A company's refresh as a deployment, and a worker that has started it."""

    story: Story
    server: PrefectServer
    workers: Workers

    def __post_init__(self) -> None:
        self._deployment = on_pool(campaign_refresh, self.story.name)
        self.workers.start()
        self.refresh()

    def refresh(self) -> None:
        """The next run of the deployment."""
        parameters = {"campaign_id": self.story.campaign_id, **self.story.saved.references}
        self._newest = self._deployment.plan(parameters)

    def retry(self) -> None:
        deployed.retry(self._newest)

    def approve(self) -> None:
        self.until_campaign_is(Status.READY_FOR_REVIEW)
        self.story.company.sandbox.approve(self.story.campaign_id)

    def until_campaign_is(self, status: Status) -> None:
        until(lambda: len(runs := self.story.company.history()) > 1 and runs[0].status == status)

    def until_state_is(self, name: str) -> None:
        until(lambda: deployed.state_of(self._newest).name == name)

    def kill_process(self) -> None:
        """`kill -9` of the flow run."""
        process = process_of(self.story.lake, self.story.campaign_id)
        os.kill(process, signal.SIGKILL)
        until_it_ends(process)


@contextmanager
def running(story: Story, server: PrefectServer) -> Iterator[Stack]:
    """A refresh that has begun."""
    workers = Workers(story.folder)
    try:
        yield Stack(story, server, workers)
    finally:
        workers.kill()
