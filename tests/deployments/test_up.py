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

ROOT = Path(__file__).parents[2]
API = f"{up.PREFECT_URL}/api"
SECONDS = 150.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": API}


@contextmanager
def running(folder: Path) -> Iterator[list[str]]:
    """`make up` in a clean folder that has the project's deployments; yields what it prints."""
    (folder / "prefect.yaml").symlink_to(ROOT / "prefect.yaml")
    (folder / "flows").symlink_to(ROOT / "flows")
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


def deployment(name: str) -> dict[str, str]:
    return httpx.get(f"{API}/deployments/name/campaign-refresh/{name}").json()


def test_a_refresh_run_on_the_stack_finishes_and_the_schedule_fires(tmp_path: Path) -> None:
    with running(tmp_path) as printed:
        run = [sys.executable, "-m", "prefect", "deployment", "run", "campaign-refresh/ad-hoc"]
        done = subprocess.run(
            [*run, "--watch"], env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + "".join(printed)
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
