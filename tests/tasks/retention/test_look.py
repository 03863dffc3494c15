"""The nightly look at the runs in the lake: what of them is no longer what was written."""

from pathlib import Path

import pytest

from blocks import DataLake
from tasks.retention import look
from tasks.retention.look import RunsDamaged, look_at_runs
from tests.support.lakes import write_run
from tests.tasks.conftest import Local

FOLDER = "messages/campaign_id={}/run_number={}"


@pytest.fixture
def lake(local: Local) -> DataLake:
    """A lake with runs of two campaigns, one of them written twice."""
    for number in (1, 1, 2):
        write_run(local.lake, "C", number, {"1": f"run {number}", "2": "x"})
    write_run(local.lake, "D", 1, {"3": "y"})
    return local.lake


def part_of(lake: DataLake, campaign_id: str, run_number: int) -> Path:
    return Path(*lake.parts(campaign_id, run_number))


def flip(file: Path) -> None:
    """Change one bit, which leaves its size."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_look_finds_nothing_in_whole_lake(lake: DataLake) -> None:
    look_at_runs.fn(lake)


def test_look_names_every_damaged_part_and_no_other(lake: DataLake) -> None:
    changed, missing = part_of(lake, "C", 1), part_of(lake, "D", 1)
    flip(changed)
    missing.unlink()
    with pytest.raises(RunsDamaged, match="2 files of runs are damaged: ") as caught:
        look_at_runs.fn(lake)
    paths = [
        f"{FOLDER.format('C', 1)}/{changed.name}",
        f"{FOLDER.format('D', 1)}/{missing.name}",
    ]
    assert str(caught.value).count("part-") == 2
    assert all(path in str(caught.value) for path in paths)


def test_look_names_manifest_that_cannot_be_read(lake: DataLake) -> None:
    path = f"{FOLDER.format('C', 1)}/_manifest-00001.json"
    manifest = Path(lake.root, path)
    manifest.write_bytes(manifest.read_bytes()[:40])
    changed = part_of(lake, "D", 1)
    flip(changed)
    with pytest.raises(RunsDamaged, match="2 files of runs are damaged: ") as caught:
        look_at_runs.fn(lake)
    assert path in str(caught.value)
    assert changed.name in str(caught.value)


def test_look_without_time_still_finds_parts_of_another_size(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "SECONDS", 0)
    flip(part_of(lake, "C", 1))
    look_at_runs.fn(lake)
    part = part_of(lake, "C", 2)
    part.write_bytes(part.read_bytes() + b"x")
    with pytest.raises(RunsDamaged, match=f"1 files of runs are damaged: .*{part.name}"):
        look_at_runs.fn(lake)


def test_run_that_is_removed_meanwhile_is_not_damaged(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = look.read_manifests

    def removed(files: look.Files, paths: list[str]) -> object:
        read = real(files, paths)
        files.remove(FOLDER.format("C", 1))
        return read

    monkeypatch.setattr(look, "read_manifests", removed)
    look_at_runs.fn(lake)
