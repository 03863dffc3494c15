"""What a point of the chaos test needs: a service, a zygote, and a fresh company to refresh."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import polars as pl
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

from blocks.storage.manifest import campaign_partition
from deployments.environment import free_port
from deployments.local import wait_for
from flows.options import RefreshOptions
from nudgescribe import rfc4180
from sandbox.service import create_app
from sandbox.settings import Settings
from tasks.refresh.history import History
from tests.chaos.zygote import Job
from tests.conftest import Company, Sandbox, customers, saved
from tests.support.prefect_servers import SECONDS, PrefectServer

KILLED = -9
LISTED, INVALID_EVERY = 250, 60


@dataclass
class Outcome:
    """How a try ended, and the effects it had."""

    code: int
    seen: list[str]
    struck: bool


@dataclass(frozen=True)
class Service:
    """The sandbox that is started again when it dies; its process is named in the file `pid`."""

    sandbox: Sandbox
    pid: Path


@contextmanager
def serving(data: Path) -> Iterator[Service]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.chaos.service", str(data), str(port)]
    with subprocess.Popen(command) as process:
        wait_for(url, process, SECONDS)
        settings = Settings(data=data, rows_per_file=100)
        yield Service(Sandbox(url, create_app(settings)), data / "pid")
        process.terminate()


class Zygote:
    """Runs flows in children of a process that has imported everything."""

    def __init__(self, server: PrefectServer, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**server.environment, "PREFECT_LOGGING_TO_API_ENABLED": "false"},
        )
        self._answer()

    def run(self, **job: Any) -> Outcome:
        seen = self._folder / f"{uuid4()}.json"
        assert self._process.stdin is not None
        self._process.stdin.write(Job(seen=seen, **job).model_dump_json() + "\n")
        self._process.stdin.flush()
        code = int(self._answer())
        # Who is killed has told nothing.
        told = json.loads(seen.read_text()) if seen.exists() else {"seen": [], "struck": True}
        return Outcome(code, **told)

    def close(self) -> None:
        assert self._process.stdin is not None
        with self._process:
            self._process.stdin.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@dataclass
class Story:
    """A company whose campaign is refreshed, and what is known of it from outside."""

    company: Company
    folder: Path
    zygote: Zygote | None = None
    proven: bool = False
    """Whether it was as it must be after its last flow run."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.listed = customers(LISTED, invalid_every=INVALID_EVERY)
        self.saved = saved(self.company, self.listed, self.folder)
        self.name = self.saved.name
        self.lake = self.saved.lake

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def campaign_id(self) -> str:
        return self.company.seeded.campaign_id

    def run(self, group: Literal["new", "reuse"], **job: Any) -> Outcome:
        """Runs the flow."""
        assert self.zygote is not None
        self.proven = False
        if group == "reuse":
            job["options"] = RefreshOptions(group="reuse", group_name=self.make_group())
        return self.zygote.run(
            campaign_id=self.campaign_id,
            name=self.name,
            blocks=self.saved.references,
            log=self.log,
            **job,
        )

    def make_group(self) -> str:
        """The name of a group that has some of the list's customers, some changed, and others."""
        name, workspace = "Everybody", self.company.seeded.workspace_id
        with self.company.client() as client:
            if all(group.name != name for group in client.list_groups(workspace)):
                group = client.create_group(workspace, name)
                some = self.listed.head(100).with_columns(plan=pl.lit("legacy"))
                held = pl.concat([some, _others(some), self.listed.slice(100, 50)])
                csv = rfc4180.write(held)
                client.upload_customers(workspace, group.customer_group_id, csv)
        return name

    def flow_runs(self) -> list[FlowRun]:
        ours = FlowRunFilter(tags=FlowRunFilterTags(any_=[self.name]))
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(flow_run_filter=ours)

    def crash(self, run: FlowRun) -> None:
        """What a worker reports when a flow run's process is gone."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Crashed(), force=True)

    @property
    def accepted(self) -> dict[str, str]:
        """The customers whose rows keep the rules, with their plans."""
        rows = zip(self.listed["customer_id"], self.listed["plan"], strict=True)
        return {one: plan for one, plan in rows if int(one) % INVALID_EVERY}

    @property
    def is_open(self) -> bool:
        """Whether the refresh is one that a next run continues."""
        standing = self.standing
        return standing is not None and standing.ended is None

    @property
    def is_kept(self) -> bool:
        """Whether something may have been made of the list."""
        return self.is_open and self.standing.kept

    @property
    def standing(self) -> Any:
        return History(self.lake.files, campaign_partition(self.campaign_id)).newest()

    @property
    def has_list(self) -> bool:
        """Whether the list has been read that the refresh must end with."""
        noted = any(
            path.endswith("/02-extracted.json") for path, *_ in self.lake.files.list_files("")
        )
        return noted or not self.lake.runs().empty

    def crm_moves_on(self) -> None:
        """From here on the CRM lists others: a refresh must end with those it began with."""
        _others(self.listed).write_csv(self.saved.crm_file)


def _others(customers: pl.DataFrame) -> pl.DataFrame:
    return customers.with_columns(customer_id=pl.concat_str(pl.lit("new-"), "customer_id"))
