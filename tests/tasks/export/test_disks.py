"""A disk that is full: which one is said, nothing half is left, and with room again all goes on."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from blocks import DataLake, FileCrm
from blocks.storage import delta
from blocks.storage.errors import DiskFull
from blocks.storage.files import DRAFT
from blocks.storage.manifest import Format
from tasks.customers.extract import extract_customers
from tasks.customers.staging import local_copy
from tasks.journal.refresh import Refresh
from tests.conftest import customers
from tests.support import disks
from tests.support.disks import Disk
from tests.support.exports import page
from tests.tasks.conftest import Local
from tests.tasks.export.conftest import Exporter, Exporting

PAGES = [page([f"{number:02}{row:05}" for row in range(500)]) for number in range(3)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with disks.small(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def export(local: Local, exporting: Exporter, disk: Disk) -> Exporting:
    """To a lake on that disk."""
    local.lake = DataLake(root=str(disk.folder / "lake"))
    return exporting(PAGES, rows=1500)


@pytest.mark.parametrize("file_format", get_args(Format))
@pytest.mark.parametrize("step", ["fetch", "commit"])
def test_export_fails_when_lake_is_full(
    export: Exporting, disk: Disk, step: str, file_format: Format
) -> None:
    export.lake.format = file_format
    planned = export.plan()
    if step == "commit":
        export.fetch(planned)
        assert export.check(planned)
    with disk.full():
        with pytest.raises(DiskFull, match="There is no room left in ") as full:
            getattr(export, step)(planned)
    # A limit of file sizes is met on the way already.
    assert not disk.mounted or "/disk/lake for messages/" in str(full.value)
    assert full.value.__cause__ is None
    assert export.lake.manifest("C", 2) is None
    assert [file for file in disk.folder.rglob("*") if file.name.startswith(DRAFT)] == []
    export.finish()
    assert len(export.ids()) == 1500


def test_commit_fails_when_lake_is_full(
    export: Exporting, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is there already."""
    export.lake.format = "delta"
    planned, real = export.fetched(), delta.commit

    def commit(*given: Any) -> None:
        with disk.full():
            real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(delta, "commit", commit)
        with pytest.raises(DiskFull, match="for messages/_delta_log"):
            export.commit(planned)
    assert export.commit(planned).rows == 1500


def test_download_fails_when_disk_is_full(
    exporting: Exporter, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    one = exporting(PAGES, rows=1500)
    planned = one.plan()
    with disk.full():
        with pytest.raises(DiskFull, match=r"/disk for page \d of run 2 of campaign C\. .*TMPDIR"):
            one.fetch(planned)
    assert not list(disk.folder.iterdir())
    one.finish()
    assert len(one.ids()) == 1500


def test_extract_fails_when_disk_is_full(
    local: Local, refresh: Refresh, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    listed = tmp_path / "list.csv"
    customers(500).write_csv(listed)
    crm = FileCrm(path=str(listed))
    with disk.full():
        with pytest.raises(DiskFull, match=r"/disk/\S+ for the customer list"):
            extract_customers.fn(crm, local.lake, refresh, None)
    staged = extract_customers.fn(crm, local.lake, refresh, None)
    assert staged.rows == 500
    with disk.full():
        with pytest.raises(DiskFull, match=rf"/disk/\S+ for {staged.path}"):
            with local_copy(local.lake, staged):
                pass
    assert not list(disk.folder.iterdir())
    with local_copy(local.lake, staged) as file:
        assert file.exists()
