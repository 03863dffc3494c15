"""The last runs of a campaign on its reports, from what the lake has written down of them."""

import io
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from blocks import DataLake
from blocks.storage.history import read_newest_runs, run_columns, write_run
from blocks.storage.manifest import campaign_partition
from tasks.refresh.trend import RUNS, Past, last_runs, show_trend
from tasks.ui.charts import SHADES
from tests.tasks.conftest import Local

NOW = Past(run_number=20, messages=100, unchanged=60, changed=30, added=10, removed=5, since=19)


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    return DataLake(root=str(tmp_path / "lake"))


def wrote(lake: DataLake, number: int, **values: Any) -> None:
    row = dict.fromkeys(run_columns().names())
    compared = {"unchanged": 80, "changed": 5, "added": 5, "removed": 1, "new": 2}
    row |= {"outcome": "completed", "run_number": number, "rows": 90, **compared, **values}
    write_run(lake.files, campaign_partition("C"), f"{number:08d}", row)


def test_last_twelve_runs_are_shown_with_the_newest_one(lake: DataLake) -> None:
    for number in range(2, 20):
        wrote(lake, number)
    wrote(lake, 19, outcome="failed")
    wrote(lake, 18, rows=None)
    wrote(lake, 17, unchanged=None)
    runs = last_runs(lake, "C", NOW)
    assert [run.run_number for run in runs] == [*range(7, 18), 20]
    assert len(runs) == RUNS
    assert runs[0].parts() == {"not compared": 0, "unchanged": 80, "changed": 5, "added": 5}
    uncompared = {"not compared": 90, "unchanged": 0, "changed": 0, "added": 0}
    assert runs[-2].parts() == uncompared
    title, chart, table = show_trend(runs)
    assert title == "## The last 12 runs"
    assert chart.startswith("![Messages of the last runs]")
    assert "| 17 | 90 | – | – | – | 2 |" in table
    assert "| 20 | 100 | 30 | 10 | 5 | – |" in table
    assert read_newest_runs(lake.files, "C", 2)["run_number"].to_list() == [18, 19]


def test_run_before_the_first_refresh_is_known_by_the_comparison(lake: DataLake) -> None:
    assert last_runs(lake, "C", NOW) == [Past(run_number=19, messages=95), NOW]
    wrote(lake, 19, previous_run=18)
    first, second, third = last_runs(lake, "C", NOW)
    assert first == Past(run_number=18, messages=86)
    assert (second.run_number, second.since, third) == (19, 18, NOW)


def colours(chart: str) -> set[str]:
    png = b64decode(chart.partition("base64,")[2].rstrip(")"))
    pixels = (imread(io.BytesIO(png))[..., :3] * 255).round().astype(int).reshape(-1, 3)
    return {f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in {*map(tuple, pixels)}}


def test_parts_have_the_same_colours_in_each_trend() -> None:
    uncompared = Past(run_number=18, messages=95)
    earlier = NOW.model_copy(update={"run_number": 19})
    _, with_uncompared, _ = show_trend([uncompared, earlier, NOW])
    _, without, _ = show_trend([earlier, NOW])
    first, *parts = SHADES
    assert {first, *parts} <= colours(with_uncompared)
    assert first not in colours(without)
    assert {*parts} <= colours(without)


@pytest.mark.parametrize("since", [None, 19])
def test_single_run_has_no_trend(lake: DataLake, since: int | None) -> None:
    alone = Past(run_number=20, messages=100, since=since)
    assert show_trend(last_runs(lake, "C", alone)) == []


def test_history_that_cannot_be_read_shows_no_earlier_runs(local: Local) -> None:
    wrote(local.lake, 19)
    (file,) = (local.folder / "lake").rglob("00000019.parquet")
    file.write_bytes(b"")
    assert last_runs(local.lake, "C", NOW) == [Past(run_number=19, messages=95), NOW]
