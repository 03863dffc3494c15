"""Where a refresh's data came from, as its process tells it by HTTP and in a file."""

import json
from dataclasses import dataclass
from secrets import token_hex
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from flows.refresh import campaign_refresh
from sandbox import seed
from tests.conftest import SEEDED_CUSTOMERS, Company, Sandbox, Saved, customers, saved
from tests.support.deployed import GUARDRAILS, on_pool, state_of
from tests.support.http_server import serving
from tests.support.otlp import LINEAGE, Receiver, run_program, run_python

LISTED = 250
MARK = f"canary{token_hex(8)}"
NOWHERE = "http://127.0.0.1:9"
TELLING = """
import sys
if sys.argv[1:]:
    sys.modules["openlineage.client"] = None
from time import monotonic, time
from prefect import flow
from tasks.lineage import Dataset, told

@flow
def telling() -> float:
    began = monotonic()
    for number in range(20):
        with told("upload", Dataset("a", "b"), Dataset("c", str(number))):
            pass
    return monotonic() - began

print(telling() < 5)
"""


@dataclass(frozen=True)
class Told:
    company: Company
    saved: Saved
    flow_run: UUID
    received: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.received.splitlines()]

    def named(self, step: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["job"]["name"].endswith(f".{step}")]


def refresh(company: Company, saved: Saved, **variables: str) -> UUID:
    run = on_pool(campaign_refresh, "lineage").refresh(company, saved, guardrails=GUARDRAILS)
    done = run_python("-m", "prefect.engine", str(run), **variables)
    assert state_of(run).is_completed(), done.stderr
    return run


@pytest.fixture(scope="module", params=["http", "file"])
def told(
    request: pytest.FixtureRequest,
    reviewed_sandbox: Sandbox,
    prefect_server: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Told:
    company = Company(reviewed_sandbox, seed.seed(reviewed_sandbox.context, SEEDED_CUSTOMERS))
    folder = tmp_path_factory.mktemp("lineage")
    listed = customers(LISTED).with_columns(
        customer_id=pl.lit(f"{MARK}-") + pl.col("customer_id"), first_name=pl.lit(MARK)
    )
    blocks = saved(company, listed, folder)
    if request.param == "http":
        with serving(Receiver()) as receiver:
            run = refresh(company, blocks, OPENLINEAGE_URL=receiver.url)
        received = "\n".join(request.body.decode() for request in receiver.requests)
        assert {request.path for request in receiver.requests} == {LINEAGE}
    else:
        file = folder / "events.json"
        variables = {"TYPE": "file", "LOG_FILE_PATH": str(file), "APPEND": "true"}
        named = {f"OPENLINEAGE__TRANSPORT__{name}": value for name, value in variables.items()}
        run = refresh(company, blocks, **named)
        received = file.read_text()
    return Told(company, blocks, run, received)


def test_lineage_leads_from_the_list_to_the_lake(told: Told) -> None:
    campaign_id = told.company.seeded.campaign_id
    ends = [told.named(step)[-1] for step in ("upload", "rerun", "export")]
    ways = [
        [(each["namespace"], each["name"]) for each in (*event["inputs"], *event["outputs"])]
        for event in ends
    ]
    assert [way[0] for way in ways[1:]] == [way[1] for way in ways[:-1]]  # one after the other
    name, (newest, *_) = told.saved.name, told.company.history()
    assert ways[0] == [
        ("crm://file-crm", f"lists/{name}"),
        (f"nudgescribe://{name}", f"groups/{newest.customer_group_id}"),
    ]
    assert ways[1][1] == (f"nudgescribe://{name}", f"campaigns/{campaign_id}")
    assert ways[2][1] == ("file", f"{told.saved.root}/messages/campaign_id={campaign_id}")


def test_steps_begin_and_end_within_their_flow_run(told: Told) -> None:
    for step in ("upload", "rerun", "export"):
        began, ended = told.named(step)
        assert (began["eventType"], ended["eventType"]) == ("START", "COMPLETE")
        assert began["run"]["runId"] == ended["run"]["runId"]
        assert began["eventTime"] < ended["eventTime"]
        parent = ended["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == str(told.flow_run)
        assert parent["job"]["name"] == "campaign-refresh"


def test_numbers_are_those_of_the_refresh(told: Told) -> None:
    upload, rerun, export = (
        told.named(step)[-1]["outputs"][0] for step in ("upload", "rerun", "export")
    )
    assert upload["outputFacets"]["outputStatistics"]["rowCount"] == LISTED
    assert rerun["facets"]["version"]["datasetVersion"] == "2"
    parts = [*told.saved.root.glob("messages/*/run_number=2/part-*")]
    written = export["outputFacets"]["outputStatistics"]
    assert (written["rowCount"], written["fileCount"]) == (LISTED, len(parts))


def test_nothing_of_customers_and_no_secret_is_told(told: Told) -> None:
    seeded = told.company.seeded
    assert seeded.profile_key
    for value in (MARK, seeded.password, seeded.api_key, seeded.api_code, seeded.profile_key):
        assert value not in told.received
    assert told.company.sandbox.url not in told.received
    assert str(told.saved.crm_file) not in told.received


def test_receiver_that_is_away_is_told_once_and_delays_no_flow(prefect_server: None) -> None:
    done = run_program(TELLING, OPENLINEAGE_URL=NOWHERE)
    assert done.stdout == "True\n"
    assert done.stderr.count("No lineage is told from here on") <= 1
    assert NOWHERE not in done.stderr


def test_receiver_without_the_extra_is_told_once(prefect_server: None) -> None:
    done = run_python("-c", TELLING, "without", OPENLINEAGE_URL=NOWHERE)
    assert done.stdout == "True\n"
    assert done.stderr.count('the extra openlineage: pip install "nudgeflow[openlineage]"') == 1


@pytest.mark.parametrize("variables", [{}, {"OPENLINEAGE_DISABLED": "true"}])
def test_nothing_is_imported_unless_it_is_wanted(
    prefect_server: None, variables: dict[str, str]
) -> None:
    asked = {"OPENLINEAGE_URL": NOWHERE, **variables} if variables else {}
    program = f"{TELLING}\nprint('openlineage' in sys.modules)"
    assert run_program(program, **asked).stdout == "True\nFalse\n"
