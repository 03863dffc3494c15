"""A big customer list through the sandbox: seconds of each step, and the service's peak memory.

python -m benchmarks.big_list [ROWS [--database URL] [--exports URL]]
"""

import io
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from time import perf_counter, sleep
from typing import TypeVar

import polars as pl

from benchmarks.measuring import draw
from deployments import local
from deployments.environment import free_port
from nudgescribe import rfc4180
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from sandbox import demo_customers

ROWS_AT_ONCE = 50_000

T = TypeVar("T")


SECONDS: dict[str, float] = {}
"""Of each step."""


def measured(process: int, name: str, step: Callable[[], T]) -> T:
    """Print how long a step takes, and a process's peak of memory; return the step's result."""
    start = perf_counter()
    result = step()
    SECONDS[name] = perf_counter() - start
    print(f"{name:24} {SECONDS[name]:7.1f} s   peak {peak_mib(process):6.0f} MiB")
    return result


def peak_mib(process: int) -> float:
    """Return the most memory that a process has had resident so far, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def listed(rows: int) -> bytes:
    """Return a CSV of generated customers, made part by part."""
    file = io.BytesIO()
    everyone = demo_customers.customers(rows, demo_customers.PLANS_NOW)
    while some := list(islice(everyone, ROWS_AT_ONCE)):
        file.write(rfc4180.write(pl.DataFrame(some), header=file.tell() == 0))
    return file.getvalue()


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    while not condition():
        sleep(0.1)


def main(rows: int, *options: str) -> None:
    """Run a sandbox with these options, and measure a refresh of `rows` rows in it."""
    with TemporaryDirectory() as folder:
        made = local.seed(Path(folder), *options)
        names = (made.email, made.password, made.api_key, made.api_code, made.profile_key)
        port = free_port()
        serve = ("-m", "sandbox", "serve", "--data", folder, "--port", str(port), *options)
        with local.child(*serve) as process:
            url = f"http://127.0.0.1:{port}"
            local.wait_for(url, process, local.STARTUP_SECONDS)
            with NudgescribeClient(url, Credentials(*names), timeout=600) as client:
                refresh(url, client, made.workspace_id, made.campaign_id, rows, process.pid)


def refresh(
    url: str,
    client: NudgescribeClient,
    workspace_id: str,
    campaign_id: str,
    rows: int,
    process: int,
) -> None:
    """Upload a list, re-run the campaign on it and fetch its messages; print what each takes."""
    csv = listed(rows)
    group = client.create_group(workspace_id, "Everyone").customer_group_id
    print(f"{rows:,} rows, {len(csv) / 1e6:.0f} MB\n")

    def state() -> str:
        return client.rerun_history(campaign_id)[0].status

    measured(process, "idle", lambda: None)
    measured(process, "upload, answered", lambda: client.upload_customers(workspace_id, group, csv))
    measured(
        process,
        "upload, worked off",
        lambda: until(lambda: client.count_customers(workspace_id, group).total == rows),
    )
    measured(process, "initiate", lambda: client.initiate_rerun(campaign_id, group))
    measured(process, "rerun", lambda: until(lambda: state() != Status.PROCESSING))
    local.approve(url, campaign_id)
    measured(process, "publish", lambda: client.publish(campaign_id))
    pages = -(-rows // ROWS_AT_ONCE)
    measured(
        process,
        "export",
        lambda: until(lambda: client.count_message_pages(campaign_id) == pages),
    )
    with TemporaryFile() as target:
        sizes = measured(
            process,
            "download",
            lambda: [client.download_page(campaign_id, page, target) for page in range(pages)],
        )
    print(f"\n{pages} pages, {sum(sizes) / 1e6:.0f} MB")
    draw("big_list", f"A list of {rows:,} customers through the sandbox", SECONDS, "s", ours="")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, *sys.argv[2:])
