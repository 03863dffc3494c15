"""Sets of customers compared: how much memory it takes above the imports, by rows.

`python -m benchmarks.identifiers 2000000 5000000 20000000`: a list with a group, a run with another
one, an export with itself (no customer twice), and an export with its list.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import polars as pl
from prefect.logging import disable_run_logger

from benchmarks.measuring import Way, as_a_child, draw, in_a_process
from blocks import DataLake
from blocks.storage.manifest import Batch, Manifest, Page, Part, manifest_name, run_folder
from blocks.storage.parquet import ParquetSink, text_schema
from tasks.customers.staging import describe
from tasks.customers.sync import diff_lists
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export.download import ExportRef
from tasks.export.ledger import Ledger
from tasks.export.verify import doubtful_pages
from tasks.refresh.reconcile import reconcile

CAMPAIGN, WRITER, STAGING = "C", "w", "staging/r/w"
LISTED, HELD = "staging/r/listed.parquet", "staging/r/held.parquet"
ROWS_AT_ONCE = 100_000
PART = "part.parquet"
FEW = 1000


def lists(root: Path) -> int:
    """Compare a list with a group, of which a twentieth differs."""
    diff = diff_lists(root / LISTED, root / HELD, "customer_id")
    return diff.added + diff.unchanged


def runs(root: Path) -> int:
    """Compare a run with the one before, of which a twentieth differs."""
    diff = DataLake(root=str(root)).diff(CAMPAIGN, 1, 2)
    return diff.added + diff.unchanged


def verification(root: Path) -> int:
    """Read an export back that has no notes, and look for repeated customers."""
    lake, export = DataLake(root=str(root)), _export(root)
    pages, problem = doubtful_pages(lake, export, Ledger(lake.files, STAGING))
    if pages or problem:
        raise SystemExit(problem)
    return export.rows or 0


def reconciliation(root: Path) -> int:
    """Compare an export with its list, and with the size of its group."""
    export = _export(root)
    group = GroupRef(workspace_id="w", customer_group_id="g", name="", size=0)
    validated = Validated(
        accepted=describe(root / LISTED, LISTED),
        extracted=0,
        rejected=0,
        quarantine=None,
        key="customer_id",
        fingerprint="",
    )
    account = cast(Any, _Account(export.rows or 0))
    with disable_run_logger():
        reconcile.fn(account, group, export, validated, DataLake(root=str(root)))
    return export.rows or 0


WAYS: dict[str, Way] = {
    "list and group": lists,
    "run and run": runs,
    "export verified": verification,
    "export and list": reconciliation,
}


class _Account:
    """An account whose groups all have `total` customers."""

    def __init__(self, total: int) -> None:
        self.total = total

    def get_client(self) -> "_Account":
        return self

    def __enter__(self) -> "_Account":
        return self

    def __exit__(self, *error: object) -> None: ...

    def count_customers(self, *group: str) -> "_Account":
        return self


def prepare(root: Path, rows: int) -> None:
    """Write a list, a group, and two runs of `rows` customers each."""
    later = rows // 20
    plans = {"plan": "gold", "region": "north"}
    _write(root / LISTED, later, rows + later, plans)
    _write(root / HELD, 0, rows, plans)
    for run, first in ((1, 0), (2, later)):
        folder = run_folder(CAMPAIGN, run)
        _write(root / folder / PART, first, rows + first, {"message": "Something new for you."})
        page = Page(page=0, rows=rows, bytes=1)
        size = (root / folder / PART).stat().st_size
        part = Part(name=PART, pages=[0], rows=rows, bytes=size, sha256="")
        manifest = Manifest(
            generation=0,
            campaign_id=CAMPAIGN,
            run_number=run,
            customer_group_id=None,
            job_uid=None,
            writer=WRITER,
            format="parquet",
            parts=[part],
            pages=[page],
            rows=rows,
            bytes=1,
            written_at=datetime.now(UTC),
            versions={},
        )
        (root / folder / manifest_name(0)).write_text(manifest.model_dump_json())
    Ledger(DataLake(root=str(root)).files, STAGING).add(Batch(pages=[page], parts=[part]))


def _write(file: Path, first: int, last: int, others: dict[str, str]) -> None:
    """Write customers with identifiers of 36 characters, some thousand at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = [pl.lit(value).alias(name) for name, value in others.items()]
    with ParquetSink(file, text_schema(["customer_id", *others])) as sink:
        for begin in range(first, last, ROWS_AT_ONCE):
            numbers = pl.int_range(begin, min(last, begin + ROWS_AT_ONCE)).cast(pl.String)
            ids = pl.concat_str(pl.lit("3f0c9a7e-51b2-4c1d-"), numbers.str.zfill(17))
            sink.write(pl.select(ids.alias("customer_id")).with_columns(values))


def _export(root: Path) -> ExportRef:
    part = pl.scan_parquet(root / run_folder(CAMPAIGN, 2) / PART)
    rows = int(part.select(pl.len()).collect().item())
    return ExportRef(
        campaign_id=CAMPAIGN,
        run_number=2,
        customer_group_id="g",
        job_uid=None,
        past=False,
        pages=1,
        rows=rows,
        writer=WRITER,
        staging=STAGING,
        generation=0,
        done=False,
    )


def main(sizes: list[int]) -> None:
    """Measure each way with each number of rows, and print each run."""
    memory: dict[str, float] = {}
    for rows in sizes:
        with TemporaryDirectory() as folder:
            root = Path(folder) / "lake"
            prepare(root, rows)
            prepare(root.with_suffix(".few"), FEW)
            for name in WAYS:
                measured = in_a_process(__spec__.name, name, root)
                print(f"{name:16} {measured}", flush=True)
                memory[f"{name}, {rows:,}"] = (measured.peak - measured.rss) / 1024
    draw("identifiers", "Memory of comparing sets of customers", memory, "MiB", ours="")


if __name__ == "__main__":
    if "--child" in sys.argv:
        as_a_child(WAYS)
    else:
        main([int(each) for each in sys.argv[1:]] or [2_000_000, 5_000_000, 20_000_000])
