"""A validated list uploaded to a sandbox: whose CPU it takes, ours or the service's.

python -m benchmarks.upload [ROWS [ROUNDS]]

The sandbox runs on the same machine. Each round uploads the same list into a new group, as a
refresh does, and waits until the group has all customers.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from prefect.logging import disable_run_logger

from benchmarks.customers import listed, rules
from benchmarks.measuring import cpu_seconds, cpu_seconds_of, draw, read_numbers
from blocks.storage.parquet import read_batches, text_schema, write_parquet
from deployments import local
from deployments.environment import free_port
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import CreateField
from tasks.customers.upload import ROWS_SENT, GroupRef, send, settled_size

ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """Seconds: of the clock, of our CPU and of the service's."""

    wall: float
    ours: float
    service: float


def upload(client: NudgescribeClient, workspace: str, file: Path, rows: int, pid: int) -> Measured:
    """Upload a list into a new group."""
    name = f"Group {perf_counter()}"
    made = client.create_group(workspace, name).customer_group_id
    group = GroupRef(workspace_id=workspace, customer_group_id=made, name=name, size=0)
    start, ours, theirs = perf_counter(), cpu_seconds(), cpu_seconds_of(pid)
    send(client, group, read_batches(file, ROWS_SENT), rows)
    settled_size(client, group, rows)
    wall = perf_counter() - start
    return Measured(wall, cpu_seconds() - ours, cpu_seconds_of(pid) - theirs)


def prepare(client: NudgescribeClient, workspace: str, file: Path, rows: int) -> None:
    """Give the workspace the fields of the list, and write the list as validation does."""
    known = {field.field_name: field for field in client.list_fields(workspace)}
    for rule in rules():
        if rule.field_name not in known:
            wanted = rule.model_dump(include={"field_name", "field_type", "field_format"})
            client.create_field(CreateField(workspace_id=workspace, **wanted))
    extra = {"region": "city", "birthday": "born"}  # of the demo company
    frame = listed(rows).with_columns(born="seen").rename({v: k for k, v in extra.items()})
    frame = frame.with_columns(birthday=frame["birthday"].str.replace_all(".", "/", literal=True))
    write_parquet(file, text_schema(frame.columns), frame.iter_slices(50_000))


def main(rows: int, rounds: int) -> None:
    """Measure some rounds, and print the medians."""
    with TemporaryDirectory() as folder, disable_run_logger():
        made = local.seed(Path(folder))
        who = Credentials(made.email, made.password, made.api_key, made.api_code)
        port, file = free_port(), Path(folder) / "list.parquet"
        serve = ("-m", "sandbox", "serve", "--data", folder, "--port", str(port))
        with local.child(*serve) as process:
            url = f"http://127.0.0.1:{port}"
            local.wait_for(url, process, local.STARTUP_SECONDS)
            with NudgescribeClient(url, who, timeout=600) as client:
                prepare(client, made.workspace_id, file, rows)
                runs = [
                    upload(client, made.workspace_id, file, rows, process.pid)
                    for _ in range(rounds)
                ]
    ours, service = median(run.ours for run in runs), median(run.service for run in runs)
    wall = median(run.wall for run in runs)
    print(f"\n{rows:,} customers of 12 fields uploaded, medians of {rounds} rounds")
    print(f"{'':16}{'CPU s':>8}{'share':>8}")
    for name, cpu in (("ours", ours), ("the sandbox", service)):
        print(f"{name:16}{cpu:8.2f}{cpu / (ours + service):8.0%}")
    print(f"{wall:.1f} s of the clock, {rows / wall:,.0f} rows/s")
    title = f"{rows:,} customers uploaded to a sandbox"
    draw("upload", title, {"ours": ours, "the sandbox": service}, "CPU s")


if __name__ == "__main__":
    main(*read_numbers(rows=1_000_000, rounds=ROUNDS))
