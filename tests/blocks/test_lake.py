from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from blocks import DataLake
from blocks.lake import LakeError
from blocks.manifest import MANIFEST, Manifest, Page


@pytest.fixture(params=["local", "memory"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> DataLake:
    root = str(tmp_path / "lake") if request.param == "local" else f"memory://{uuid4()}"
    return DataLake.model_validate({"root": root, "storage_options": {}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    one = tmp_path / "file"
    one.write_bytes(b"content")
    return one


def test_what_is_put_can_be_got(lake: DataLake, file: Path, tmp_path: Path) -> None:
    assert not lake.exists("a/b/c")
    lake.put(file, "a/b/c")
    assert lake.exists("a/b/c")
    lake.get("a/b/c", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert lake.names("a/b") == ["c"]


def test_putting_again_replaces(lake: DataLake, file: Path, tmp_path: Path) -> None:
    lake.put(file, "a/c")
    file.write_bytes(b"newer")
    lake.put(file, "a/c")
    lake.get("a/c", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"newer"
    assert lake.names("a") == ["c"]


def test_what_is_not_there(lake: DataLake, tmp_path: Path) -> None:
    assert lake.names("nowhere") == []
    lake.remove("nowhere")
    with pytest.raises(LakeError, match="nowhere/c is not in the lake"):
        lake.get("nowhere/c", tmp_path / "copy")


def test_removing_a_folder_removes_what_it_holds(lake: DataLake, file: Path) -> None:
    lake.put(file, "a/b/c")
    lake.put(file, "a/d")
    lake.remove("a")
    assert not lake.exists("a/b/c")
    assert not lake.exists("a/d")


def test_a_copy_that_breaks_leaves_nothing_visible(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = DataLake(root=str(tmp_path / "lake"))
    lake.put(file, "a/first")

    def full(source: str, target: str) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("blocks.lake.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        lake.put(file, "a/second")
    assert lake.names("a") == ["first"]


def test_private_files_are_their_owners_only(tmp_path: Path, file: Path) -> None:
    lake = DataLake(root=str(tmp_path / "lake"))
    lake.put(file, "private", private=True)
    assert (tmp_path / "lake/private").stat().st_mode & 0o777 == 0o600


def test_a_run_is_there_with_its_manifest(lake: DataLake, file: Path) -> None:
    assert lake.manifest("1", 2) is None
    written = Manifest(
        campaign_id="1",
        run_number=2,
        customer_group_id="3",
        job_uid=None,
        format="csv",
        files=[Page(name="part-00000.csv", page=0, rows=1, bytes=7, sha256="x")],
        rows=1,
        bytes=7,
        written_at=datetime.now(UTC),
        versions={},
    )
    file.write_text(written.model_dump_json())
    lake.put(file, f"{lake.run_folder('1', 2)}/{MANIFEST}")
    assert lake.manifest("1", 2) == written


def test_something_else_under_the_manifests_name_is_an_error(lake: DataLake, file: Path) -> None:
    lake.put(file, f"{lake.run_folder('1', 2)}/{MANIFEST}")
    with pytest.raises(LakeError, match="not a manifest"):
        lake.manifest("1", 2)
