"""Retention where files lie that are not the project's, or that it cannot read."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks import DataLake
from blocks.storage.reader import read_manifests, select_newest_manifests
from tasks.journal.refresh import Refresh
from tasks.retention.files import file_candidates
from tasks.retention.rules import Ages, Candidate
from tasks.retention.runs import UNREADABLE, remove_leftover, remove_run, run_candidates
from tests.support.lakes import write_run

NOW = datetime.now(UTC) + timedelta(days=30)
AGES = Ages(quarantine_days=7, plans_days=7, journals_days=7, runs_days=7)
MANIFEST = "messages/campaign_id={}/run_number={}/_manifest-00000.json"


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    """A lake with two runs of two campaigns each."""
    lake = DataLake(root=str(tmp_path / "lake"))
    for campaign in "CD":
        for number in (1, 2):
            write_run(lake, campaign, number, {"1": "a"})
    return lake


def candidates(lake: DataLake, refresh: Refresh) -> list[Candidate]:
    found = [*lake.files.list_files("")]
    manifests = read_manifests(lake.files, select_newest_manifests(each.path for each in found))
    return [
        *file_candidates(lake.files, found, NOW, AGES, {}, refresh),
        *run_candidates(lake.files, found, manifests, NOW, AGES, {}),
    ]


@pytest.mark.parametrize(
    "path",
    [
        ".DS_Store",
        "notes.txt",
        *("staging", "quarantine", "plans", "refreshes", "journals"),
        "refreshes/notes.txt",
        "messages/notes.txt",
        "messages/campaign_id=C/notes.txt",
        "messages/campaign_id=C/run_number=1/.DS_Store",
        "messages/campaign_id=C/run_number=x/_manifest-00000.json",
        "messages/other/run_number=1/_manifest-00000.json",
        "staging/notes.txt",
        "staging/.DS_Store",
        "quarantine/notes.txt",
        "quarantine/campaign_id=C/.DS_Store",
        "quarantine/mine/list.parquet",
        "plans/campaign_id=C/notes.txt",
    ],
)
def test_foreign_file_stays(lake: DataLake, refresh: Refresh, path: str) -> None:
    before = candidates(lake, refresh)
    lake.files.write(path, b"x")
    assert candidates(lake, refresh) == before != []


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 99}'])
@pytest.mark.parametrize("number", [1, 2])
def test_unreadable_manifest_keeps_its_campaign_alone(
    lake: DataLake, refresh: Refresh, number: int, content: bytes
) -> None:
    lake.files.write("messages/campaign_id=C/run_number=1/part-00000-00000-dead.parquet", b"")
    lake.files.write("messages/campaign_id=D/run_number=1/part-00000-00000-dead.parquet", b"")
    kinds = [(one.kind, "=C/" in one.target) for one in candidates(lake, refresh)]
    assert kinds == [
        ("leftover", True),
        ("leftover", False),
        ("lake run", True),
        ("lake run", False),
    ]
    lake.files.write(MANIFEST.format("C", number), content)
    assert [(one.kind, "=C/" in one.target) for one in candidates(lake, refresh)] == [
        ("leftover", False),
        ("lake run", False),
    ]


def test_run_is_kept_when_its_manifest_is_damaged_since_listed(
    lake: DataLake, refresh: Refresh
) -> None:
    part = "messages/campaign_id=C/run_number=1/part-00000-00000-dead.parquet"
    lake.files.write(part, b"")
    leftover, *_, run, _ = candidates(lake, refresh)
    assert (leftover.target, run.target) == (part, MANIFEST.format("C", 1))
    for path in Path(lake.root).rglob("*"):
        os.utime(path, (0, 0))
    Path(lake.root, run.target).write_bytes(b"")
    assert remove_leftover(lake.files, leftover, NOW) == UNREADABLE
    assert remove_run(lake, run) == UNREADABLE
