"""The local stack, as `make up` runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import httpx
import pytest

from deployments import up
from nudgescribe.client import NudgescribeClient
from sandbox.seed import Seeded
from tests.conftest import credentials_of
from tests.waiting import until

ROOT = Path(__file__).parents[2]
API = f"{up.PREFECT_URL}/api"
SECONDS = 150.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": API}


@contextmanager
def running(folder: Path) -> Iterator[list[str]]:
    """`make up` in a clean folder that has the project's deployments; yields what it prints."""
    (folder / "prefect.yaml").symlink_to(ROOT / "prefect.yaml")
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.up"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    printed: list[str] = []
    reader = Thread(target=printed.extend, args=(process.stdout,))
    reader.start()
    try:
        end = monotonic() + SECONDS
        while not any("Ctrl-C ends all of it" in line for line in printed):
            assert process.poll() is None, "".join(printed)
            assert monotonic() < end, "".join(printed)
            sleep(0.2)
        yield printed
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
            reader.join()
            process.stdout.close()


def run(deployment: str) -> "subprocess.Popen[bytes]":
    """Starts a flow run and watches it to its end."""
    command = [sys.executable, "-m", "prefect", "deployment", "run", deployment, "--watch"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)


def states(flow: str) -> set[str]:
    """The states of a flow's runs that were begun."""
    wanted = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"start_time": {"is_null_": False}}}
    runs = httpx.post(f"{API}/flow_runs/filter", json=wanted).json()
    return {each["state_name"] for each in runs}


def status(folder: Path) -> str:
    """The campaign's, as the sandbox has it."""
    seeded = Seeded.model_validate_json((folder / ".local/sandbox/seeded.json").read_text())
    url = f"http://127.0.0.1:{up.SANDBOX_PORT}"
    with NudgescribeClient(url, credentials_of(seeded)) as client:
        return client.rerun_history(seeded.campaign_id)[0].status


def deployment(name: str) -> dict[str, str]:
    return httpx.get(f"{API}/deployments/name/campaign-refresh/{name}").json()


@pytest.mark.chaos
def test_a_refresh_run_on_the_stack_finishes_and_the_schedule_fires(tmp_path: Path) -> None:
    with running(tmp_path) as printed:
        refresh = run("campaign-refresh/ad-hoc")
        until(lambda: states("campaign-refresh") == {"Suspended"})
        until(lambda: status(tmp_path) == "Ready to publish")
        with run("resume-reviewed/every-five-minutes") as review:
            assert review.wait(SECONDS) == 0, "".join(printed)
        with refresh:
            assert refresh.wait(SECONDS) == 0, "".join(printed)
        assert len(list((tmp_path / ".local/lake").rglob("_manifest-*.json"))) == 1
        wanted = {"block_types": {"slug": {"any_": ["nudgescribe-campaign-rerun", "file-crm"]}}}
        assert len(httpx.post(f"{API}/block_types/filter", json=wanted).json()) == 2
        # Planned runs show that the server's scheduler works with what is installed beside it.
        wanted = {"deployments": {"id": {"any_": [deployment("monthly")["id"]]}}}
        planned = httpx.post(f"{API}/flow_runs/filter", json=wanted).json()
        assert {run["state_type"] for run in planned} == {"SCHEDULED"}
        with pytest.raises(SystemExit, match=f"Port {up.PREFECT_PORT} is in use"):
            up.main()
    # Prefect's own background jobs trip over a locked SQLite now and then; they try again.
    frames = [line for line in printed if line.lstrip().startswith('File "/')]
    assert all("/lib/python3" in frame for frame in frames), "".join(printed)
    with pytest.raises(httpx.ConnectError):
        httpx.get(API)
