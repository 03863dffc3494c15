"""What customers are called and written, and how an account signs in, is nowhere but in the lake,
at the service and in encrypted blocks: whatever a flow does and whatever goes wrong with it.
"""

import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any
from uuid import UUID

import httpx
import polars as pl
import psycopg
import pytest
from cryptography.fernet import Fernet
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling
from prefect.types import SecretDict
from pydantic import SecretStr

from blocks import CrmSource, DataLake, FileCrm, NudgescribeAccount, SqlCrm, SqlTable
from blocks.crm.errors import SourceUnavailable
from blocks.crm.saas.hubspot import HubSpotCrm
from blocks.saved import slug_reference
from blocks.storage.files import OWNER_ONLY
from deployments.environment import free_port
from deployments.local import wait_for
from flows.customers import sync_customers
from flows.erase import erase_customers
from flows.export import export_messages
from flows.plan import plan_refresh
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from flows.review import resume_reviewed
from nudgescribe import contract
from nudgescribe.telemetry import LINK
from sandbox import seed
from sandbox.data.models import Campaign
from sandbox.service import create_app
from sandbox.settings import Settings
from tests.conftest import Company, Sandbox, customers
from tests.support import databases
from tests.support.clock import until
from tests.support.deployed import (
    POOL,
    ROOT,
    Deployed,
    becomes,
    deploy,
    on_pool,
    process_of,
    state_of,
)
from tests.support.http_server import FakeService, Reply, Request, as_json, serving
from tests.support.otlp import LINEAGE, Receiver
from tests.support.prefect_servers import impatient
from tests.workers.aloud import READABLE
from tests.workers.canaries import Canaries, canary

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

LISTED = 60
SECRETS = ("password", "api_key", "api_code", "profile_key")
FLOWS: list[Flow[..., Any]] = [
    campaign_refresh,
    erase_customers,
    export_messages,
    plan_refresh,
    publish_campaign,
    resume_reviewed,
    sync_customers,
]
SHOWN = {
    "artifact.data",
    "artifact_collection.data",
    "events.payload",  # the page's
    "flow_run_input.value",
}
"""Where the review is shown: as a page, and beside the form of the suspended run."""
CAMPAIGNS_TEXTS = {"segment", "template"}
HELD = {
    "staging": {"customer", "segment"},
    "messages": {"customer", "segment", "template"},
    "plans": {"segment"},
    "quarantine": {"customer"},
    "sync_changes": {"customer"},
    "segments": {"customer", "segment", "template"},
    "holdouts": {"customer"},
    "handover": {"customer", "segment", "template"},
}
"""What the lake holds; of quarantined rows, of changes, of segments' members and of those who are
held out it is the identifier.
"""

Twist = Callable[[Any], Any]


# ---- processes --------------------------------------------------------------------------------


class Machine:
    """A machine with nothing on it but what its processes write; what they say is in `said`, and
    what they tell a receiver of telemetry and of lineage.
    """

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self.folder = folder
        self.receiver = receiver
        self.here, self.said = folder / "here", folder / "said"
        self.places = {name: folder / name.lower() for name in ("HOME", "TMPDIR", "PREFECT_HOME")}
        for place in (*self.places.values(), self.here, self.said):
            place.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """A Python process of this machine; through a pipe, since its disk may be full."""
        loud = {
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_LOGGING_COLORS": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "DEBUG",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_API_URL": self.url,
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
        }
        if name != "server":  # whose own libraries have nothing of ours that it does not store
            loud |= {
                "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
                "PREFECT_LOGGING_ROOT_HANDLERS": "debug",
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
                "OPENLINEAGE_URL": self.receiver.url,
            }
        places = {variable: str(place) for variable, place in self.places.items()}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **places, **loud},
            cwd=self.here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
        Thread(target=self._write_down, args=(name, process)).start()
        self.running.append(process)
        return process

    def stop(self) -> None:
        while self.running:
            process = self.running.pop()
            if process.stdin:
                process.stdin.close()
            elif "sandbox" in process.args:
                process.kill()  # it would still answer calls of those that are gone
            else:
                process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        (self.said / "telemetry").write_bytes(self.receiver.received)

    def _write_down(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout
        with process.stdout, (self.said / name).open("wb", buffering=0) as file:
            for line in process.stdout:
                file.write(line)


class Runner:
    """Works on flow runs in one process, with no second lost between them."""

    def __init__(self, machine: Machine, flows: dict[str, Deployed]) -> None:
        self._flows = flows
        answers, out = os.pipe()
        command = ("-m", "tests.workers.aloud", str(out))
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "pass_fds": [out]}
        self._process = machine.start("runner", *command, **options)
        os.close(out)
        self._answers = os.fdopen(answers)

    def close(self) -> None:
        self._answers.close()

    def run(self, flow: str, ends: str, says: str = "", full: bool = False, **given: Any) -> UUID:
        """A flow run that ends in this state and says so."""
        run = self._flows[flow].plan(given)
        self.work(flow, run, ends, says, full)
        return run

    def work(self, flow: str, run: UUID, ends: str, says: str = "", full: bool = False) -> None:
        here = self._flows[flow].flow.fn
        job = {"flow": f"{here.__module__}:{here.__name__}", "run": str(run), "full": full}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        assert self._answers.readline() == "done\n"
        state = state_of(run)
        assert state.name == ends, f"{flow}: {state.name}, {state.message}"
        assert re.search(says, state.message or ""), f"{flow}: {state.message}"


# ---- the service ------------------------------------------------------------------------------


class Liar(FakeService):
    """Passes calls on to a service, and twists answers that were good."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._twists: dict[str, Twist] = {}

    def answer(self, request: Request) -> Reply:
        said = httpx.request(
            request.method,
            f"{self._service}{request.path}",
            params=request.query,
            headers={name: value for name, value in request.headers.items() if name != "Host"},
            content=request.body,
        )
        twist = self._twists.get(request.path)
        if twist and said.is_success:
            return as_json(twist(said.json()))
        return Reply(said.status_code, said.content)

    @contextmanager
    def twisting(self, path: str, answer: object) -> Iterator[None]:
        """Answers so, or as a function makes it of the service's answer."""
        self._twists = {path: answer if callable(answer) else lambda _: answer}
        yield
        self._twists = {}


@dataclass
class Stage:
    """All there is: a machine, a service, its companies' blocks, and the canaries."""

    machine: Machine
    runner: Runner
    service: Sandbox
    lakes: Path
    canaries: Canaries

    def __post_init__(self) -> None:
        self.marks = {
            kind: canary(kind) for kind in ("id", "name", "mail", "bad", "plan", "text", "note")
        }
        for kind in ("id", "name", "mail", "bad", "note"):
            self.canaries.add("customer", self.marks[kind])
        self.canaries.add("segment", self.marks["plan"])
        self.canaries.add("template", self.marks["text"])

    def secret(self, kind: str) -> str:
        """One more secret, which must be found nowhere."""
        value = canary(kind)
        self.canaries.add(kind, value)
        return value

    def company(self) -> Company:
        """A company whose blocks are saved; new segments get a message of its own template."""
        company = Company(self.service, seed.seed(self.service.context, LISTED))
        with self.service.context.store.write() as session:
            campaign = session.get_one(Campaign, company.seeded.campaign_id)
            campaign.template = f"{campaign.template}{self.marks['text']}\n"
        for kind in SECRETS:
            self.canaries.add(kind, getattr(company.seeded, kind))
        given = {"email": company.seeded.email, "password": company.seeded.password}
        signed_in = httpx.post(
            f"{self.service.url}{contract.AUTH}", headers=company.credentials.headers, json=given
        ).json()
        self.canaries.add("token", signed_in["access_token"], signed_in["refresh_token"])
        name = name_of(company)
        company.account().save(name)
        DataLake(root=str(self.lakes / name)).save(name)
        self.lists(company, self.customers())
        return company

    def customers(self, count: int = LISTED) -> pl.DataFrame:
        """Customers that are canaries altogether, and one of them quarantined."""
        mark, number = self.marks, pl.int_range(count)
        name = pl.lit(mark["name"])
        hostile = f'"{mark["name"]}",\r\n{mark["name"]} {{{{ é'
        return customers(count).with_columns(
            customer_id=pl.lit(mark["id"]) + pl.col("customer_id"),
            first_name=pl.when(number % 3 == 0).then(pl.lit(hostile)).otherwise(name),
            last_name=pl.lit(f"{mark['mail']}@{mark['mail']}.example"),
            visits=pl.when(number == 7).then(pl.lit(mark["bad"])).otherwise("visits"),
            plan=pl.col("plan").replace("student", mark["plan"]),
        )

    def lists(self, company: Company, listed: pl.DataFrame | str | CrmSource) -> Any:
        """What the company's CRM lists from here on; returns the block's reference."""
        name = name_of(company)
        if not isinstance(listed, CrmSource):
            file = self.lakes.parent / "crm" / f"{name}.csv"
            file.parent.mkdir(exist_ok=True)
            if isinstance(listed, str):
                file.write_text(listed)
            else:
                listed.write_csv(file)
            listed = FileCrm(path=str(file))
        listed.save(name, overwrite=True)
        return listed.to_reference()

    def refresh(self, company: Company, ends: str, says: str = "", **options: Any) -> UUID:
        """A refresh in the runner."""
        full = options.pop("full", False)
        return self.runner.run(
            "campaign-refresh", ends, says, full, **refreshing(company, **options)
        )

    def sync(self, company: Company, ends: str, says: str = "", **blocks: Any) -> UUID:
        where = {"workspace_id": company.seeded.workspace_id, "group_name": token_hex(4)}
        blocks = references(company) | blocks
        return self.runner.run("sync-customers", ends, says, **where, **blocks)

    def export(self, company: Company, ends: str, says: str = "") -> UUID:
        given: dict[str, Any] = {
            "campaign_id": company.seeded.campaign_id,
            "options": {"export_minutes": 0.01},
            **references(company, "account", "lake"),
        }
        return self.runner.run("export-messages", ends, says, **given)


def name_of(company: Company) -> str:
    return company.seeded.email.partition("@")[0]


def references(company: Company, *wanted: str) -> dict[str, Any]:
    kinds = {"account": NudgescribeAccount, "crm": FileCrm, "lake": DataLake}
    return {
        name: slug_reference(f"{kinds[name].get_block_type_slug()}/{name_of(company)}")
        for name in wanted or kinds
    }


def refreshing(company: Company, **options: Any) -> dict[str, Any]:
    return {
        "campaign_id": company.seeded.campaign_id,
        **references(company),
        "options": {"guardrails": {"max_shrink": 1}, "review": "stop", **options},
    }


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with serving(Receiver()) as receiver:
        machine = Machine(tmp_path / "machine", receiver)
        yield machine
        machine.stop()


@pytest.fixture
def stage(machine: Machine, tmp_path: Path) -> Iterator[Stage]:
    port, data = free_port(), tmp_path / "service"
    serve = ("serve", "--data", str(data), "--port", str(port), "--rows-per-file", "20")
    sandbox = machine.start("sandbox", "-m", "sandbox", *serve)
    server = machine.start(
        "server", *["-m", "prefect", "server", "start", "--no-ui", "--port"], str(machine.port)
    )
    wait_for(f"{machine.url}/health", server, 120)
    wait_for(f"http://127.0.0.1:{port}", sandbox, 120)
    app = create_app(Settings(data=data, rows_per_file=20))
    with impatient({PREFECT_API_URL: machine.url}):
        flows = {flow.name: deploy(flow, "here") for flow in FLOWS}
        runner = Runner(machine, flows)
        service = Sandbox(f"http://127.0.0.1:{port}", app)
        yield Stage(machine, runner, service, tmp_path / "lakes", Canaries())
        runner.close()
        app.state.context.store.close()


# ---- what happens -----------------------------------------------------------------------------


def reviewed_and_published(stage: Stage) -> None:
    """A refresh that sleeps, and one that is stopped and published later; both leave out some, and
    one who joins them during the review.
    """
    company = stage.company()
    blocks = references(company, "account", "lake")
    campaign = company.seeded.campaign_id
    key, suppressed = stage.lakes.parent / "crm" / "holdout", stage.customers().gather_every(4)
    key.write_text(stage.secret("holdout"))
    block = FileCrm(path=str(key.with_name("suppressed.csv")))
    suppressed.head(3).write_csv(block.path)
    block.save(f"{name_of(company)}-suppressed")
    left_out = {
        "suppress": block.to_reference(),
        "holdout": {"share": 0.2, "key": f"file:{key}"},
    }
    stage.runner.run("plan-refresh", "Completed", **refreshing(company, **left_out))
    run = stage.refresh(company, "Suspended", review="suspend", **left_out)
    suppressed.write_csv(block.path)
    company.sandbox.approve(campaign).raise_for_status()
    stage.runner.run("resume-reviewed", "Completed")
    stage.runner.work("campaign-refresh", run, "Completed")
    lake = DataLake.load(name_of(company))
    changes = {*lake.sync_changes(campaign)["change"]}
    assert changes >= {"suppressed", "suppressed_since", "held_out"}
    stage.lists(company, stage.customers(40))
    key.write_text(stage.secret("holdout"))
    stage.refresh(company, "Stopped", "Run 3 is Ready", **left_out)
    # The new key may have brought a segment back of which the old one had held out everybody.
    company.sandbox.approve(campaign)
    stage.runner.run("publish-campaign", "Completed", campaign_id=campaign, **blocks)


def programs(stage: Stage) -> None:
    """Flows that a program calls, with blocks that are saved and with ones that are not."""
    company = stage.company()
    name = name_of(company)
    saved = [NudgescribeAccount.load(name), FileCrm.load(name), DataLake.load(name)]
    unsaved = [company.account(), FileCrm(path=saved[1].path), DataLake(root=saved[2].root)]
    for account, crm, lake in (saved, unsaved):
        group = token_hex(4)
        sync_customers(company.seeded.workspace_id, group, account, crm, lake)


def stormy(stage: Stage) -> None:
    """Everything goes wrong once, and well in the end."""
    company = stage.company()
    for endpoint, fault in {
        contract.AUTH: {"status": 503},
        contract.FIELDS: {"truncate": True},
        contract.CAMPAIGNS: {"status": 429, "retry_after": 0},
        contract.GROUPS: {"drop": "after"},
        contract.CUSTOMERS_CHECK: {"expired": True},
        contract.RERUN_HISTORY: {"drop": "before"},
        contract.RERUN_INITIATE: {"drop": "after"},
        contract.MESSAGES_PAGES: {"expired": True},
        contract.MESSAGES_FETCH: {"truncate": True},
        "/exports/": {"truncate": True},
    }.items():
        stage.service.fault(endpoint, times=1, **fault)
    stage.refresh(company, "Stopped")
    company.sandbox.approve(company.seeded.campaign_id).raise_for_status()
    stage.refresh(company, "Completed", review="wait")
    stage.service.no_faults()
    handed_over(stage, company)
    erased(stage, company)


def refused_lists(stage: Stage, company: Company) -> None:
    listed = stage.customers()
    refused = partial(stage.refresh, company, "Failed")
    bad = pl.lit(stage.marks["bad"])
    for wrong, problem in [
        (listed.drop("first_name").with_columns(shoe_size=bad), r"column \d+ is no field"),
        (pl.concat([listed, listed.head(2)]), "2 customer identifiers occur more than once"),
        (listed.with_columns(birthday=bad, grade=bad), "60 of 60 rows were rejected"),
        (listed.write_csv(include_header=False), "None of the list's 9 columns is a field"),
        (listed.write_csv() + f'"{stage.marks["name"]}', "is in no quotes that end|cut off|row"),
        (listed.write_csv() + f"{stage.marks['name']},1\n", "row 61"),
    ]:
        stage.lists(company, wrong)
        refused(problem)
    stage.lists(company, listed)
    refused("Row 8, field 'visits'", strict=True)
    refused("new segments", guardrails={"max_shrink": 1, "max_new_segments": 1})
    fields = {"first_name": {"column": "Vorname"}}
    stage.lists(company, listed.write_csv(include_header=False))
    refused("no column Vorname", fields=fields)
    stage.lists(company, listed)


def lost_crms(stage: Stage, company: Company, postgresql: str) -> None:
    """CRM systems whose own words would hold values, statements and passwords."""
    name, secret = stage.marks["name"], stage.secret("crm")
    file, url = stage.lakes.parent / "crm" / "crm.db", databases.new_database(postgresql)
    with closing(sqlite3.connect(file)) as small, small:
        small.execute(
            "CREATE TABLE who AS SELECT ? AS name, CAST(? AS BLOB) AS other", (name, name)
        )
        small.execute("UPDATE who SET other = CAST(other || x'ff' AS TEXT)")
    with psycopg.connect(url.replace("+psycopg", "")) as large:
        large.execute("CREATE TABLE who AS SELECT %s::text AS name", (name,))
    bucket = {"path": "s3://crm/list.csv", "storage_options": lost(secret)}
    hubspot = {"base_url": stage.service.url, "token": secret, "list_id": "1", "properties": ["a"]}
    for source, problem in [
        (sql(f"sqlite:///{file}", "SELECT name frm who frm"), "The query failed"),
        (sql(f"sqlite:///{file}", "SELECT json(name) FROM who"), "The query failed"),
        (sql(f"sqlite:///{file}", "SELECT other FROM who"), "text that is not UTF-8"),
        (sql(url, "SELECT name::int FROM who"), "The query failed"),
        (sql(url, "SELECT name::date FROM who WHERE name > :a", a="a"), "The query failed"),
        (sql(f"postgresql://me:{secret}@127.0.0.1:9/crm", "SELECT 1"), "could not be reached"),
        (sql(f"mysql+pymysql://me:{secret}@127.0.0.1:9/crm", "SELECT 1"), "could not be reached"),
        (sql(f"me:{secret}@127.0.0.1", "SELECT 1"), "The URL is not of SQLAlchemy's form"),
        (FileCrm.model_validate(bucket), "list"),
        (HubSpotCrm.model_validate(hubspot), "HubSpot"),
    ]:
        stage.sync(company, "Failed", problem, crm=stage.lists(company, source))
    stage.lists(company, stage.customers())


def sql(url: str, query: str, **parameters: str) -> SqlCrm:
    return SqlCrm.model_validate({"url": url, "query": query, "parameters": parameters})


def lost(secret: str) -> dict[str, Any]:
    """Options of a store that does not answer."""
    once = {"retries": {"max_attempts": 0}}
    endpoint = "http://127.0.0.1:9"
    return {"key": "key", "secret": secret, "endpoint_url": endpoint, "config_kwargs": once}


def failing_calls(stage: Stage, company: Company) -> None:
    """Calls that carry customers, downloads that bring messages, and all fail in the end."""
    for fault, ends, problem in [
        ({"status": 500}, "Failed", "answered 500"),
        ({"status": 429, "retry_after": 9999}, "Failed", "answered 429"),
        ({"drop": "before"}, "Failed", "got no answer"),
        ({"drop": "after"}, "Completed", ""),
        ({"truncate": True}, "Completed", ""),
        ({"expired": True}, "Failed", "auth error"),
    ]:
        stage.service.fault(contract.CUSTOMERS_CHECK, **fault)
        stage.sync(company, ends, problem)
    stage.service.no_faults()
    for fault in ({"truncate": True}, {"drop": "before"}, {"status": 503}):
        stage.service.fault(contract.MESSAGES_FETCH, **fault)
        stage.export(company, "Failed")
    stage.service.no_faults()
    stage.service.fault("/exports/", expired=True)
    stage.export(company, "Completed")
    stage.service.no_faults()
    for secret in SECRETS[:3]:
        changes = {secret: stage.secret(secret)}
        company.account(**changes).save(name_of(company), overwrite=True)
        if secret != "api_key":  # which the sandbox does not look at when tokens are new
            stage.export(company, "Failed", "403")
    other = Fernet.generate_key().decode()
    stage.canaries.add("profile_key", other)
    company.account(profile_key=other).save(name_of(company), overwrite=True)
    stage.runner.run("plan-refresh", "Failed", "does not open", **refreshing(company))
    company.account().save(name_of(company), overwrite=True)


def broken_pages(stage: Stage, company: Company) -> None:
    """Pages that lost their header, a quote, a value."""
    page = company.page_file()
    whole = page.read_text()
    mark = stage.marks["name"]
    for broken in (
        f"{stage.marks['id']},{mark}\r\n" * 2,
        f'customer_id,message\r\n1,"{mark}',
        f"customer_id,message\r\n1,{mark},{mark}\r\n",
        f'customer_id,message\r\n{mark}"{mark}",1"\r\n',
    ):
        page.write_text(broken)
        stage.export(company, "Failed", "Page 0 of run 1 of campaign .* is broken")
    page.write_text(whole)


def twisted_answers(stage: Stage) -> None:
    """Answers that do not fit the contract, and hold what must not be told."""
    company = stage.company()
    name, value = stage.marks["name"], stage.marks["bad"]
    with serving(Liar(stage.service.url)) as liar:
        company.account(base_url=liar.url).save(name_of(company), overwrite=True)
        cipher = Fernet(company.seeded.profile_key)
        sealed = cipher.encrypt(json.dumps({"first_name": {name: value}}).encode()).decode()
        token = stage.secret("token")
        row = {"row": 1, "field": "first_name", "code": "INVALID", "message": value}
        person = {"customer_id": name, "profile": sealed}
        plan = partial(stage.runner.run, "plan-refresh", "Failed", **refreshing(company))
        for path, answer in [
            (contract.AUTH, {"access_token": [token], "expires_in": token}),
            (contract.CUSTOMERS, {"customers": [{**person, "profile": 1}]}),
            (contract.CUSTOMERS, {"customers": [person], "page": 0, "num_pages": 1}),
        ]:
            with liar.twisting(path, answer):
                plan("does not fit the contract")
        with liar.twisting(contract.MESSAGES_FETCH, {"url": [name], "content": {name: 1}}):
            stage.export(company, "Failed")
        for wrong, problem in [
            ({"rejected": value}, "does not fit the contract"),
            ({"rejected": 1, "errors": [row]}, "The service rejected 1 rows"),
        ]:
            with liar.twisting(contract.CUSTOMERS_CHECK, but(**wrong)):
                stage.sync(company, "Failed", problem)
        failed = {"status": "Failed", "error": "A phase broke down."}

        def failing(said: Any) -> Any:
            newest, *others = said["runs"]
            return {"runs": [{**newest, **failed} if others else newest, *others]}

        with liar.twisting(contract.RERUN_HISTORY, failing):
            stage.refresh(company, "Failed", "A phase broke down")


def but(**wrong: object) -> Twist:
    """An answer with these fields in place of its own."""
    return lambda said: {**said, **wrong}


def lost_lakes(stage: Stage, company: Company) -> None:
    """No room, no folder, no store."""
    name = name_of(company)
    stage.refresh(company, "Failed", "There is no room left", full=True)
    file = stage.lakes / "file"
    file.write_text("")
    secret = stage.secret("storage")
    for root, store, problem in [
        (f"{file}/lake", {}, ""),
        ("s3://bucket/lake", lost(secret), "The lake could not be reached"),
    ]:
        lake = DataLake.model_validate({"root": root, "storage_options": store})
        lake.save(f"{name}-lost", overwrite=True)
        stage.sync(company, "Failed", problem, lake=lake.to_reference())


@contextmanager
def struck(stage: Stage) -> Iterator[None]:
    """Two refreshes on a worker, at the end one is cancelled and one killed while they upload."""
    pooled = on_pool(campaign_refresh, directory=stage.machine.here)
    stage.machine.start("worker", "-m", "prefect", "worker", "start", "--pool", POOL)
    companies = [stage.company(), stage.company()]
    stage.service.fault(contract.CUSTOMERS_CHECK, delay=120)
    cancelled, killed = (pooled.plan(refreshing(each)) for each in companies)
    yield
    until(lambda: len([*stage.machine.places["TMPDIR"].rglob("staged.parquet")]) == len(companies))
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(cancelled, Cancelling())
    lake = DataLake(root=str(stage.lakes / name_of(companies[1])))
    os.kill(process_of(lake, companies[1].seeded.campaign_id), signal.SIGKILL)
    becomes(cancelled, "Cancelled")
    becomes(killed, "Crashed")
    stage.service.no_faults()
    for company in companies:
        stage.refresh(company, "Stopped")


def handed_over(stage: Stage, company: Company) -> None:
    """To a file, and to databases whose own words would hold values and passwords."""
    name, secret = name_of(company), stage.secret("crm")
    file = stage.lakes.parent / "crm" / f"{name}.db"
    columns = "campaign_id TEXT, customer_id TEXT, message TEXT, run_number INT, written_at TEXT"
    key = "PRIMARY KEY (campaign_id, customer_id)"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            f"CREATE TABLE nudgescribe_messages ({columns}, {key}, CHECK (message = ''))"
        )

    def to(url: str) -> dict[str, Any]:
        table = SqlTable(url=SecretStr(url))
        table.save(name, overwrite=True)
        return {"hand_over": "csv", "copy_to": table.to_reference(), "review": "wait"}

    stage.lists(company, stage.customers(LISTED + 40))
    lost = to(f"postgresql://team:{secret}@127.0.0.1:9/{secret}")
    stage.refresh(company, "Failed", "answered OperationalError", **lost)
    refused = to(f"sqlite:///{file}")
    stage.refresh(company, "Failed", "answered IntegrityError SQLITE_CONSTRAINT_CHECK", **refused)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DROP TABLE nudgescribe_messages")
    stage.refresh(company, "Completed", **refused)
    with closing(sqlite3.connect(file)) as database:
        ids = database.execute("SELECT customer_id FROM nudgescribe_messages").fetchall()
    assert all(id_.startswith(stage.marks["id"]) for (id_,) in ids)
    assert ids


def erased(stage: Stage, company: Company) -> None:
    """Once the lake has a key, and all groups let their customers go."""
    name, key = name_of(company), stage.lakes.parent / "crm" / "erasure"
    key.write_text(stage.secret("erasure"))
    block = FileCrm(path=str(key.with_name("erased.csv")))
    stage.customers().gather_every(2).write_csv(block.path)
    block.save(f"{name}-erased")
    given = {**references(company, "account", "lake"), "crm": block.to_reference()}
    stage.runner.run("erase-customers", "Failed", "has no erasure_key", **given)
    lake = DataLake(root=str(stage.lakes / name), erasure_key=SecretStr(f"file:{key}"))
    lake.save(name, overwrite=True)
    stage.service.fault(contract.CUSTOMERS, method="DELETE", status=400)
    stage.runner.run("erase-customers", "ErasureIncomplete", "refused to delete", **given)
    stage.service.no_faults()
    stage.runner.run("erase-customers", "Completed", **given)


# ---- what is found ----------------------------------------------------------------------------


def test_customers_and_secrets_are_found_nowhere_else(
    stage: Stage, machine: Machine, tmp_path: Path, postgresql_server: str
) -> None:
    company = stage.company()
    with struck(stage):
        refused_lists(stage, company)
        lost_crms(stage, company, postgresql_server)
        broken_pages(stage, company)
    lost_lakes(stage, company)
    failing_calls(stage, company)
    twisted_answers(stage)
    programs(stage)
    stormy(stage)
    reviewed_and_published(stage)
    machine.stop()

    told = {span.name.partition("-")[0] for span in machine.receiver.spans()}
    assert {"refresh", f"POST {contract.AUTH}", f"GET {LINK}"} <= told
    assert machine.receiver.metrics()
    assert machine.receiver.count(LINEAGE)
    canaries = stage.canaries
    canaries.add("credential", "signature=", "Bearer ", "eyJhbGciOi")
    stored = canaries.in_database(machine.places["PREFECT_HOME"] / "prefect.db")
    # Prefect ends a suspended flow run without its form if it sees the new state before the form is
    # saved and then cannot save it.
    assert stored == dict.fromkeys(SHOWN & stored.keys(), CAMPAIGNS_TEXTS)
    assert stored.keys() >= SHOWN - {"flow_run_input.value"}
    for name, kinds in canaries.in_folder(machine.folder).items():
        bytes_of_database = name.startswith("prefect_home/prefect.db")
        assert kinds <= (CAMPAIGNS_TEXTS if bytes_of_database else set()), name
    assert held(stage) == HELD
    assert_private(machine, stage.lakes)


def held(stage: Stage) -> dict[str, set[str]]:
    """What the lakes hold, by the kind of folder."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for name, found in stage.canaries.in_folder(stage.lakes).items():
        kinds[name.split("/")[1]] |= found
    return dict(kinds)


def assert_private(machine: Machine, lakes: Path) -> None:
    readable = machine.here / READABLE
    assert not readable.exists(), readable.read_text()
    folders = ("staging", "quarantine", "refreshes", "sync_changes")
    private = [*(f"*/{folder}/**/*" for folder in folders), "*/segments/**/members-*"]
    for pattern in private:
        files = [file for file in lakes.glob(pattern) if file.is_file()]
        assert files
        assert {file.stat().st_mode & 0o777 for file in files} == {OWNER_ONLY}


def test_key_in_the_address_of_a_list_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    signed = SecretDict({"params": {"token": "canary"}})
    crm = FileCrm(path="https://127.0.0.1:9/list.csv", storage_options=signed)
    with caplog.at_level(logging.DEBUG), pytest.raises(SourceUnavailable) as caught:
        crm.extract(Path("none"))
    assert "127.0.0.1:9/list.csv" in str(caught.value)
    assert "canary" not in caplog.text + str(caught.value)
