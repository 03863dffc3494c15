"""Snapshots of the inventory, whatever else lies beside them."""

from pathlib import Path

import polars as pl
import pytest

from blocks import DataLake
from blocks.storage.manifest import CAMPAIGNS, RUNS
from blocks.storage.snapshots import CAMPAIGN_COLUMNS, RUN_COLUMNS, SnapshotDamaged, snapshot_file

OLD, NEW = "2026-11-22T06-00-00Z", "2026-11-23T06-00-00Z"


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    lake = DataLake(root=str(tmp_path))
    for name in (OLD, NEW):
        for folder, columns in ((RUNS, RUN_COLUMNS), (CAMPAIGNS, CAMPAIGN_COLUMNS)):
            with lake.files.new_file(snapshot_file(folder, name, "w")) as file:
                pl.DataFrame(schema=columns).write_parquet(file)
    return lake


def test_foreign_file_is_no_snapshot(lake: DataLake) -> None:
    for name in (".DS_Store", "notes.txt", "campaigns-w.parquet.bak"):
        lake.files.write(f"campaigns/{name}", b"")
        lake.files.write(f"campaigns/snapshot={NEW}/{name}", b"")
        lake.files.write(f"campaigns/snapshot=2026-12-01T00-00-00Z/{name}", b"")
    assert lake.inventory().name == NEW
    assert lake.inventory(OLD).runs.is_empty()


@pytest.mark.parametrize("folder", [CAMPAIGNS, RUNS])
@pytest.mark.parametrize("content", [b"", b"PAR1 canary"])
def test_damaged_snapshot_is_told_and_hides_no_other(
    lake: DataLake, folder: str, content: bytes
) -> None:
    path = snapshot_file(folder, NEW, "w")
    lake.files.write(path, content)
    with pytest.raises(SnapshotDamaged, match=f"{path} is empty, cut off or damaged"):
        lake.inventory()
    assert lake.inventory(OLD).name == OLD
