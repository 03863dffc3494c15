"""Memory of a list of 500 fields of 50 characters: `python -m benchmarks.wide_list`."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import polars as pl
from prefect.logging import disable_run_logger

from benchmarks.measuring import Way, as_a_child, draw, in_a_process
from blocks import DataLake
from blocks.storage.parquet import ParquetSink, read_batches, text_schema
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import WorkspaceField
from tasks.customers import validate
from tasks.customers.mapping import FieldMapping
from tasks.customers.staging import describe
from tasks.customers.upload import ROWS_SENT, GroupRef, send
from tasks.journal.refresh import Refresh

FIELDS, CHARACTERS, ROWS, FEW, AT_ONCE = 500, 50, 40_000, 100, 10_000
NAMES = [f"field_{number}" for number in range(FIELDS)]
TOKENS = {"access_token": "a", "refresh_token": "r", "token_type": "B", "expires_in": 3600}
DONE = {"job_uid": "j", "status": "completed", "total": 1, "accepted": 1, "rejected": 0}
GROUP = GroupRef(workspace_id="w", customer_group_id="g", name="n", size=0)


def prepare(file: Path, rows: int) -> None:
    """Write a list as validation does, a batch at a time."""
    with ParquetSink(file, text_schema(NAMES)) as sink:
        for first in range(0, rows, AT_ONCE):
            ids = pl.int_range(first, min(first + AT_ONCE, rows), eager=True).cast(pl.String)
            sink.write(pl.DataFrame(dict.fromkeys(NAMES, ids.str.zfill(CHARACTERS))))


def upload(file: Path) -> int:
    """Upload a list to a service that reads bodies and forgets them."""
    sent = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal sent
        if request.url.path.endswith("/auth"):
            return httpx.Response(200, json=TOKENS)
        sent += request.content.count(b"\r\n0000")
        return httpx.Response(200, content=json.dumps({**DONE, "errors": []}))

    transport, who = httpx.MockTransport(answer), Credentials("e", "p", "k", "c")
    with disable_run_logger(), NudgescribeClient("http://x", who, transport=transport) as client:
        send(client, GROUP, read_batches(file, ROWS_SENT), ROWS)
    return sent


def validate_list(file: Path) -> int:
    """Validate a list of text fields, with the lake on disk."""
    rules = [
        WorkspaceField(
            field_id=name,
            workspace_id="w",
            field_name=name,
            display_name=name,
            field_type="string",
            unique=name == NAMES[0],
        )
        for name in NAMES
    ]
    refresh = Refresh(id="r", started=datetime.now(UTC), journal="journals/r")
    with TemporaryDirectory() as folder, disable_run_logger():
        lake = DataLake(root=folder)
        lake.files.put(file, "staging/extracted.parquet")
        staged = describe(file, "staging/extracted.parquet")
        mapping = FieldMapping(rules=rules, sources={})
        validated = validate.validate_customers.fn(mapping, staged, lake, refresh, "x")
    return validated.accepted.rows


WAYS: dict[str, Way] = {"upload": upload, "validate": validate_list}


def main() -> None:
    """Measure each way, and print each run."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "list.parquet"
        prepare(file, ROWS)
        prepare(file.with_suffix(".few"), FEW)
        runs = {way: in_a_process("benchmarks.wide_list", way, file) for way in WAYS}
    for way, measured in runs.items():
        print(f"{way:8} {measured}")
    memory = {way: (measured.peak - measured.rss) / 1024 for way, measured in runs.items()}
    draw("wide_list", f"Memory of a list of {FIELDS} fields", memory, "MiB", ours="")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        as_a_child(WAYS)
    else:
        main()
