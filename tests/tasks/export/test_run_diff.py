"""A run's messages against those of the run before it in the lake."""

from pathlib import Path

import pytest

from blocks import DataLake
from blocks.storage.errors import LakeUnreachable
from blocks.storage.files import Files
from blocks.storage.manifest import Format, manifest_name, run_folder
from tasks.export.run_diff import RunDiffSummary, compare_messages
from tests.support.lakes import write_run

FIRST = {"01": "a", "02": "b", "03": "canary, c\n", "04": ""}
SECOND = {"04": "d", "02": "b", "05": "e", "01": "a", "06": "f"}


def part_of(lake: DataLake, run_number: int) -> Path:
    return Path(lake.parts("C", run_number)[0])


@pytest.mark.parametrize("file_format", ["parquet", "csv.zst", "delta"])
def test_run_diff_counts_added_removed_and_changed(lake: DataLake, file_format: Format) -> None:
    lake.format = file_format
    write_run(lake, "C", 8, FIRST)
    write_run(lake, "C", 9, SECOND)
    found = compare_messages.fn(lake, "C", 9)
    assert found == RunDiffSummary(since=8, added=2, removed=1, changed=1, unchanged=2)
    assert (found.in_both, found.compared) == (3, True)


def test_run_diff_compares_newest_complete_run_before(lake: DataLake) -> None:
    for number in (2, 9, 11):
        write_run(lake, "C", number, FIRST)
    lake.files.write(f"{run_folder('C', 10)}/part-left-by-somebody.parquet", b"")
    write_run(lake, "another", 10, FIRST)
    assert [compare_messages.fn(lake, "C", number).since for number in (11, 9, 3)] == [9, 2, 2]


@pytest.mark.parametrize("also", [[], [3]])
def test_run_diff_is_empty_for_first_run(lake: DataLake, also: list[int]) -> None:
    for number in [2, *also]:
        write_run(lake, "C", number, FIRST)
    found = compare_messages.fn(lake, "C", 2)
    assert (found, found.compared) == (RunDiffSummary(), False)


def test_run_diff_has_problem_without_value_when_unreadable(lake: DataLake) -> None:
    write_run(lake, "C", 1, FIRST)
    write_run(lake, "C", 2, SECOND)
    part = part_of(lake, 1)
    whole = part.read_bytes()
    part.write_bytes(whole[:-20] + b"canary" * 3)
    damaged = compare_messages.fn(lake, "C", 2)
    part.unlink()
    lost = compare_messages.fn(lake, "C", 2)
    lake.files.write(f"{run_folder('C', 1)}/{manifest_name(0)}", b"canary")
    unknown = compare_messages.fn(lake, "C", 2)
    path = f"{run_folder('C', 1)}/{part.name}"
    assert damaged == RunDiffSummary(since=1, problem=f"{path} is empty, cut off or damaged.")
    assert lost == RunDiffSummary(since=1, problem=f"{path} is not in the lake.")
    assert unknown.problem == (
        f"{run_folder('C', 1)}/{manifest_name(0)} is empty, cut off or damaged."
    )


def test_run_diff_raises_when_lake_is_away(lake: DataLake, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(lake, "C", 1, FIRST)
    write_run(lake, "C", 2, SECOND)

    def lost(files: Files, path: str) -> None:
        raise LakeUnreachable(f"The lake could not be reached at {path}.")

    monkeypatch.setattr(Files, "open", lost)
    with pytest.raises(LakeUnreachable):
        compare_messages.fn(lake, "C", 2)
    assert compare_messages.retries == 3
