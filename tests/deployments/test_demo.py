"""`make demo`, as a newcomer runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]


def demo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deployments.demo", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_demo_counts_agree(tmp_path: Path) -> None:
    lake = tmp_path / "some lake"
    done = demo("--lake", str(lake), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"│ ([\w ,:]+?) +│ +([\d., ]+) │", done.stdout))
    assert rows["rows extracted"] == "5,000"
    assert rows["rows accepted"] == rows["rows in the lake"] == "4,949"
    assert rows["rows rejected"] == "51"
    assert rows["segments matched, new, orphaned"] == "12, 4, 4"
    assert rows["files"] == "1"
    assert re.search(r"│ messages changed since run 1 +│ [\d,]+ of 4,949 │", done.stdout)
    assert rows["customers added, removed"] == "0, 51"
    assert str(lake) in done.stdout
    assert len(list(lake.rglob("part-*.parquet"))) == 2
    assert "\x1b[" not in done.stdout + done.stderr


def test_failed_demo_says_why(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("id,plan\n1,a\n2,b\n2,b\n")
    done = demo("--list", str(file), "--segments", "plan", folder=tmp_path)
    assert done.returncode == 1
    assert "The demo failed: 1 customer identifiers occur more than once" in done.stderr
