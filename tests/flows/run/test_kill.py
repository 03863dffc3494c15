"""A refresh killed with `kill -9` and retried: nothing is started twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
from prefect.states import Crashed

from nudgescribe.contract import Status
from tests.conftest import Company, Save, customers
from tests.support.waiting import until

SECONDS = 90.0
RUN = (
    "import json, sys; from flows.refresh import campaign_refresh as run; "
    "run(sys.argv[1], **json.loads(sys.argv[2]))"
)


@pytest.fixture
def start(prefect_server: None) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Python processes that know the test's Prefect server; ends what is left of them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_HOME": str(PREFECT_HOME.value()),
            **settings,
        }
        started.append(subprocess.Popen([sys.executable, *arguments], env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def flow_run_of(campaign_id: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=200)
    (run,) = [run for run in runs if run.parameters.get("campaign_id") == campaign_id]
    return run


def crashed(run_id: UUID) -> None:
    """What a worker reports when a flow run's process is gone."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Crashed(), force=True)


@pytest.mark.chaos
@pytest.mark.parametrize("keep_results", [True, False], ids=["same worker", "another worker"])
def test_rerun_is_started_once_when_killed_after_initiate(
    company: Company,
    save: Save,
    start: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    keep_results: bool,
) -> None:
    other_worker = tmp_path / "other-worker"
    saved = save(company, customers(250))
    campaign = company.seeded.campaign_id
    process = start("-c", RUN, campaign, json.dumps(saved.references))
    until(lambda: company.history()[0].status == Status.READY_FOR_REVIEW, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (saved.root / "messages").exists()
    # The CRM has moved on; the refresh must end with the customers it began with.
    saved.crm_file.write_text("customer_id\nsomebody else\n")
    run = flow_run_of(campaign)
    crashed(run.id)
    # Another machine does not see the results the first one kept.
    elsewhere = {} if keep_results else {"PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(other_worker)}
    again = ("flow-run", "retry", str(run.id), "--entrypoint", "flows/refresh.py:campaign_refresh")
    retry = start("-m", "prefect", *again, **elsewhere)
    company.sandbox.approve(campaign)
    assert retry.wait(SECONDS) == 0
    assert [one.run_number for one in company.history()] == [2, 1]
    assert len(company.groups()) == 2
    manifest = saved.lake.manifest(campaign, 2)
    assert manifest is not None
    assert manifest.rows == 250
    assert flow_run_of(campaign).run_count == 2
