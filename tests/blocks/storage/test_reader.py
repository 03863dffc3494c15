"""Runs in the lake: the newest counts, and one that cannot be read hides no other."""

import json
from pathlib import Path

import polars as pl
import pytest

from blocks import DataLake
from blocks.storage.errors import LakeError, TooNew
from blocks.storage.manifest import SCHEMA_VERSION, run_folder
from blocks.storage.reader import ManifestDamaged, PartChanged, PartUnreadable
from tests.support.lakes import write_run

MANIFEST = f"{run_folder('C', 2)}/_manifest-00000.json"


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    """A lake with two runs of a campaign."""
    lake = DataLake(root=str(tmp_path / "lake"))
    for number in (1, 2):
        write_run(lake, "C", number, {"1": f"run {number}"})
    return lake


def change(lake: DataLake, **values: object) -> None:
    file = Path(lake.root, MANIFEST)
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def texts(lake: DataLake, run: int | None = None) -> list[str]:
    frame = lake.read("C", run, "polars")
    assert isinstance(frame, pl.DataFrame)
    return frame["message"].to_list()


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ({"schema_version": 99, "rows": None}, TooNew, "in version 99 .* up to "),
        ({"schema_version": SCHEMA_VERSION + 1}, TooNew, f"up to {SCHEMA_VERSION}"),
        ({"rows": "many"}, ManifestDamaged, "is empty, cut off or damaged"),
        ({"campaign_id": "D"}, ManifestDamaged, "another run: it belongs in .*campaign_id=D"),
        ({"run_number": 1}, ManifestDamaged, "another run: it belongs in .*run_number=1"),
    ],
)
def test_manifest_that_is_not_its_runs_hides_no_other(
    lake: DataLake,
    logged: pytest.LogCaptureFixture,
    values: dict[str, object],
    kind: type[LakeError],
    said: str,
) -> None:
    change(lake, **values)
    for run in (2, None):
        with pytest.raises(kind, match=f"{MANIFEST} .*{said}"):
            texts(lake, run)
    assert texts(lake, 1) == ["run 1"]
    assert lake.runs()["run_number"].to_list() == [1]
    assert f"Skipped: {MANIFEST}" in logged.text


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"schema_version": 2}'])
def test_damaged_manifest_hides_no_other(lake: DataLake, content: bytes) -> None:
    Path(lake.root, MANIFEST).write_bytes(content)
    with pytest.raises(ManifestDamaged, match=MANIFEST):
        texts(lake)
    assert lake.runs()["run_number"].to_list() == [1]


def test_manifest_that_the_store_does_not_give_out_hides_no_other(
    lake: DataLake, logged: pytest.LogCaptureFixture
) -> None:
    file = Path(lake.root, MANIFEST)
    file.unlink()
    file.symlink_to(file.name)  # a loop: listed, and never to be read
    assert lake.runs()["run_number"].to_list() == [1]
    assert f"Skipped: The lake refuses {MANIFEST}" in logged.text


@pytest.mark.parametrize("name", ["../../other.parquet", "/other.parquet", "..", "", "a%2Fb"])
def test_part_outside_of_its_folder_is_refused(lake: DataLake, name: str) -> None:
    part = json.loads(Path(lake.root, MANIFEST).read_text())["parts"][0]
    change(lake, parts=[{**part, "name": name}])
    with pytest.raises(ManifestDamaged):
        texts(lake, 2)


@pytest.mark.parametrize("file_format", ["parquet", "csv", "csv.zst"])
def test_damaged_part_is_told_without_its_text(tmp_path: Path, file_format: str) -> None:
    lake = DataLake.model_validate({"root": str(tmp_path), "format": file_format})
    write_run(lake, "C", 1, {"1": "a" * 100, "2": "canary"})
    part = Path(*lake.parts("C"))
    part.write_bytes(part.read_bytes()[:-10] + b'"canary"x')
    with pytest.raises(PartUnreadable, match=f"{part.name} is empty, cut off or damaged") as caught:
        lake.read("C")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("file_format", ["parquet", "csv", "csv.zst"])
@pytest.mark.parametrize("damage", ["changed", "cut off", "missing"])
def test_read_that_verifies_names_part_that_was_damaged(
    tmp_path: Path, file_format: str, damage: str
) -> None:
    lake = DataLake.model_validate({"root": str(tmp_path), "format": file_format})
    write_run(lake, "C", 1, {"1": "one", "2": "two"})
    assert lake.read("C", verify=True, kind="polars").equals(lake.read("C", kind="polars"))
    part = Path(*lake.parts("C"))
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content[:-1] if damage == "cut off" else content)
    if damage == "missing":
        part.unlink()
    with pytest.raises(PartChanged, match=rf"run_number=1/{part.name} is (missing|not what)"):
        lake.read("C", verify=True)


def test_file_that_is_no_run_is_passed_over(lake: DataLake) -> None:
    for path in (
        "messages/notes.txt",
        "messages/campaign_id=C/.DS_Store",
        "messages/campaign_id=C/notes/_manifest-00000.json",
        "messages/campaign_id=C/run_number=x/_manifest-00000.json",
        "messages/campaign_id=C/run_number=3/part-00000-00000-dead.parquet",
        "messages/campaign_id=C/run_number=2/_manifest-00001.json.bak",
        "messages/@eaDir/run_number=9/_manifest-00000.json",
        "_manifest-00000.json",
    ):
        lake.files.write(path, b"")
    assert lake.runs()["run_number"].to_list() == [1, 2]
    assert texts(lake) == ["run 2"]


@pytest.mark.parametrize("pointer", [b"", b"{", b'{"run_number": 1, "manifest": "x"}'])
def test_reader_takes_newest_run_when_pointer_names_another(lake: DataLake, pointer: bytes) -> None:
    lake.files.write("messages/campaign_id=C/_latest.json", pointer)
    assert texts(lake) == ["run 2"]
    lake.files.remove("messages/campaign_id=C/_latest.json")
    write_run(lake, "C", 10, {"1": "run 10"})
    assert texts(lake) == ["run 10"]
