"""The peak of this process' memory, in MiB, of a step with so many rows: `reconcile 1000000`."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import polars as pl
from prefect.logging import disable_run_logger
from pyarrow import parquet

from blocks import DataLake
from blocks.storage.manifest import Batch, Page, Part, run_folder
from tasks.customers import sync
from tasks.customers.staging import describe
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export.download import ExportRef
from tasks.export.ledger import Ledger
from tasks.refresh import reconcile

STEP = 100_000


def write(file: Path, first: int, last: int, **more: str) -> None:
    """Customers by identifiers of 36 characters, some thousand at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    writer: Any = None
    for begin in range(first, last, STEP):
        number = pl.int_range(begin, min(last, begin + STEP)).cast(pl.String).str.zfill(17)
        ids = pl.concat_str(pl.lit("3f0c9a7e-51b2-4c1d-"), number).alias("customer_id")
        others = [pl.lit(value).alias(name) for name, value in more.items()]
        table = pl.select(ids).with_columns(others).to_arrow()
        writer = writer or parquet.ParquetWriter(file, table.schema, use_dictionary=False)
        writer.write_table(table)
    writer.close()


def compared(folder: Path, rows: int) -> None:
    listed, held = folder / "listed.parquet", folder / "held.parquet"
    write(listed, 0, rows, plan="gold", region="north")
    write(held, rows // 20, rows + rows // 20, plan="gold", region="north")
    sync.diff_lists(listed, held, "customer_id")


def reconciled(folder: Path, rows: int) -> None:
    lake = DataLake(root=str(folder))
    ledger = Ledger(lake.files, "staging/r/w")
    write(folder / run_folder("C", 2) / "part.parquet", 0, rows, message="hi")
    part = Part(name="part.parquet", pages=[0], rows=rows, bytes=1, sha256="")
    ledger.add(Batch(pages=[Page(page=0, rows=rows, bytes=1)], parts=[part]))
    accepted = folder / "staging/r/accepted.parquet"
    write(accepted, 0, rows)
    validated = Validated(
        accepted=describe(accepted, "staging/r/accepted.parquet"),
        extracted=rows, rejected=0, quarantine=None, key="customer_id", fingerprint="",
    )  # fmt: skip
    export = ExportRef(
        campaign_id="C", run_number=2, customer_group_id="g", job_uid=None, past=False, pages=1,
        rows=rows, writer="w", staging="staging/r/w", generation=0, done=False,
    )  # fmt: skip
    group = GroupRef(workspace_id="w", customer_group_id="g", name="n", size=rows)
    account: Any = Account(rows)
    with disable_run_logger():
        reconcile.reconcile.fn(account, group, export, validated, lake)


class Account(SimpleNamespace):
    """An account block and its client, for a group of so many."""

    def __init__(self, rows: int) -> None:
        super().__init__(total=rows)

    def get_client(self) -> "Account":
        return self

    def __enter__(self) -> "Account":
        return self

    def __exit__(self, *error: object) -> None: ...

    def count_customers(self, *where: object) -> "Account":
        return self


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        {"reconcile": reconciled, "compare": compared}[sys.argv[1]](Path(place), int(sys.argv[2]))
    # Not getrusage, which begins with what the process that started this one had.
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
