"""The lake: how files appear in it, and how runs are read back."""

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import polars as pl
import pytest

from blocks import DataLake
from blocks.storage import delta
from blocks.storage.errors import DiskFull
from blocks.storage.files import DRAFT, AlreadyThere, Files, LakeError, NotInLake
from tests.support.lakes import write_run
from tests.support.stores import Store


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> DataLake:
    if request.param == "local":
        return DataLake(root=str(tmp_path / "lake"))
    store: Store = request.getfixturevalue("store")
    return store.lake(f"s3://lake/{uuid4()}")


@pytest.fixture
def local(tmp_path: Path) -> Files:
    """A lake on this machine's disk."""
    return DataLake(root=str(tmp_path / "lake")).files


@pytest.fixture
def files(lake: DataLake) -> Files:
    return lake.files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    one = tmp_path / "file"
    one.write_bytes(b"content")
    return one


def test_file_that_was_put_can_be_read(files: Files, file: Path, tmp_path: Path) -> None:
    assert not files.exists("a/b/c")
    for content in (b"content", b"newer"):
        file.write_bytes(content)
        files.put(file, "a/b/c")
        files.get("a/b/c", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == files.read("a/b/c") == content
        with files.open("a/b/c") as opened:
            assert opened.read() == content
    assert files.exists("a/b/c")
    assert files.list_names("a/b") == ["c"]
    ((path, modified, _),) = files.list_files("a")
    assert path == "a/b/c"
    assert abs(datetime.now(UTC) - modified) < timedelta(minutes=1)
    # By the clock of the files.
    assert timedelta(0) <= files.now() - modified < timedelta(minutes=1)
    assert [file.path for file in files.list_files("")] == ["a/b/c"]


def test_create_refuses_an_existing_file(files: Files) -> None:
    files.create("a/c", b"first")
    with pytest.raises(AlreadyThere, match="a/c is in the lake already"):
        files.create("a/c", b"second")
    assert files.read("a/c") == b"first"
    assert files.list_names("a") == ["c"]


def test_missing_file_is_not_in_lake(files: Files, tmp_path: Path) -> None:
    assert files.list_names("nowhere") == []
    files.remove("nowhere")
    calls: list[Callable[[], object]] = [
        lambda: files.get("nowhere/c", tmp_path / "copy"),
        lambda: files.read("nowhere/c"),
        lambda: files.open("nowhere/c").__enter__(),
    ]
    for call in calls:
        with pytest.raises(NotInLake, match="nowhere/c is not in the lake"):
            call()


def test_remove_removes_a_folder_with_its_files(files: Files, file: Path) -> None:
    files.put(file, "a/b/c")
    files.put(file, "a/d")
    files.remove("a")
    assert not files.exists("a/b/c")
    assert not files.exists("a/d")


def test_failed_write_leaves_nothing(
    local: Files, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put(file, "a/first")

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("blocks.storage.files.os.replace", full)
    with pytest.raises(DiskFull):
        local.put(file, "a/second")
    assert local.list_names("a") == ["first"]
    monkeypatch.setattr("blocks.storage.files.os.link", full)
    with pytest.raises(DiskFull):
        local.create("a/second", b"")
    assert [each.name for each in (tmp_path / "lake/a").iterdir()] == ["first"]


def test_draft_is_not_listed(local: Files) -> None:
    draft = local.draft("a/c")
    draft.file.write_bytes(b"half")
    assert local.list_names("a") == []
    assert draft.file.name.startswith(DRAFT)


def test_private_file_is_readable_by_owner_only(local: Files, tmp_path: Path, file: Path) -> None:
    local.put(file, "private", private=True)
    assert (tmp_path / "lake/private").stat().st_mode & 0o777 == 0o600


def test_encryption_becomes_options_of_the_file_system() -> None:
    tagged = {"Tagging": "a=b"}
    options = {"storage_options": {"s3_additional_kwargs": tagged}, "encryption": "aws:kms"}
    lake = DataLake.model_validate({"root": "memory://x", "kms_key": "key", **options})
    encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key"}
    assert lake.options["s3_additional_kwargs"] == {**tagged, **encrypted}
    plain = DataLake(root="memory://x", encryption="AES256")
    assert plain.options == {"s3_additional_kwargs": {"ServerSideEncryption": "AES256"}}


@pytest.mark.parametrize("file_format", ["parquet", "csv", "csv.zst"])
def test_run_is_readable_once_it_has_a_manifest(lake: DataLake, file_format: str) -> None:
    lake = lake.model_copy(update={"format": file_format})
    assert lake.runs().empty
    assert lake.manifest("C/1", 2) is None
    with pytest.raises(LakeError, match="Run 2 of campaign C/1 is not in the lake"):
        lake.read("C/1", 2)
    with pytest.raises(LakeError, match="The latest run of campaign C/1 is not in the lake"):
        lake.read("C/1")
    manifest = write_run(lake, "C/1", 2, {"01": "a", "02": "b"}, {"03": ""})
    assert lake.manifest("C/1", 2) == manifest
    assert lake.files.list_names("messages") == ["campaign_id=C%2F1"]
    read = lake.read("C/1", 2)
    assert read.to_dict("list") == {"customer_id": ["01", "02", "03"], "message": ["a", "b", ""]}
    assert lake.read("C/1", 2, "arrow").num_rows == 3
    scan = lake.scan("C/1", 2)
    assert scan.head(1).collect().rows() == [("01", "a")]
    assert scan.filter(pl.col("message") == "b").select("customer_id").collect().item() == "02"
    assert scan.select(pl.len()).collect().item() == 3
    runs = lake.runs()[["campaign_id", "run_number", "rows", "parts"]]
    assert runs.to_numpy().tolist() == [["C/1", 2, 3, 1]]


def test_diff_counts_and_names_changed_customers(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.storage.reader.ROWS_AT_ONCE", 2)
    write_run(lake, "C", 1, {"01": "a", "02": "b", "03": "c"}, {"04": "d"})
    write_run(lake, "C", 2, {"04": "d", "02": "B"}, {"05": "e", "01": "a", "06": ""})
    diff = lake.diff("C", 1, 2)
    assert repr(diff) == "RunDiff(added=2, removed=1, changed=1, unchanged=2)"
    assert sorted(diff.customers.collect().rows()) == [
        ("02", "changed"),
        ("03", "removed"),
        ("05", "added"),
        ("06", "added"),
    ]
    same = lake.diff("C", 1, 1)
    assert (same.added, same.removed, same.changed, same.unchanged) == (0, 0, 0, 4)
    assert same.customers.collect().is_empty()


def test_delta_is_refused_on_other_file_systems(tmp_path: Path) -> None:
    manifest = write_run(DataLake(root=str(tmp_path)), "C", 1, {"01": "a"})
    with pytest.raises(LakeError, match="local folder or to S3"):
        delta.commit(DataLake(root=f"memory://{uuid4()}").files, {}, manifest)


def test_damaged_delta_table_is_told(tmp_path: Path) -> None:
    lake = DataLake(root=str(tmp_path), format="delta")
    write_run(lake, "C", 1, {"01": "a"})
    for log in (tmp_path / "messages/_delta_log").glob("*.json"):
        log.write_bytes(b"canary")
    with pytest.raises(LakeError, match="Delta table at messages/_delta_log") as caught:
        write_run(lake, "C", 2, {"01": "a"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("attempt", range(5))
def test_delta_table_is_created_once_by_concurrent_runs(attempt: int, tmp_path: Path) -> None:
    lake = DataLake(root=str(tmp_path / "lake"), format="delta")
    start = Barrier(8)

    def write(number: int) -> None:
        start.wait()
        write_run(lake, "C", number, {f"{number}": "a"})

    with ThreadPoolExecutor(start.parties) as threads:
        list(threads.map(write, range(start.parties)))
    table = pl.scan_delta(str(tmp_path / "lake" / "messages")).collect()
    assert sorted(table["run_number"]) == list(range(start.parties))
