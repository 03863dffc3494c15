"""What the documents tell people to run, run."""

import re
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from blocks import DataLake
from blocks.manifest import run_folder
from tests.lakes import write_run

ROOT = Path(__file__).parents[1]
LAKE = (ROOT / "docs/lake.md").read_text()


def code(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", LAKE, re.DOTALL)


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    lake = DataLake(root=str(tmp_path / "lake"), format="delta")
    write_run(lake, "C", 1, {"000123": "Hello,\nyou"}, {"NA": ""})
    write_run(lake, "C", 1, {"000123": "Hello,\nyou"}, {"NA": "", "x": "y"})
    write_run(lake, "C", 2, {"000123": "Hello"}, {"new": "!"})
    return lake


def test_the_lakes_queries(lake: DataLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataLake, "load", lambda name: lake)
    names: dict[str, object] = {"campaign_id": "C", "lake": lake}
    blocks = [block for block in code("python") if "spark" not in block]
    assert len(blocks) == 6
    for block in blocks:
        exec(block, names)
    assert isinstance(frame := names["frame"], pd.DataFrame)
    assert sorted(frame["customer_id"]) == ["000123", "NA", "x"]
    assert isinstance(lengths := names["lengths"], pl.DataFrame)
    assert round(lengths.item(), 2) == 3.67
    assert sorted(names["rows"]) == [("000123", 10), ("NA", 0), ("x", 1)]
    assert repr(names["diff"]) == "Diff(added=1, gone=2, changed=1, unchanged=0)"
    delta = pl.scan_delta(lake.files.url("messages"))
    assert delta.group_by("run_number").len().sort("run_number").collect().rows() == [
        (1, 3),
        (2, 2),
    ]


def test_the_lakes_sql(lake: DataLake) -> None:
    (sql,) = code("sql")
    folder = lake.files.url(run_folder("C", 1))
    *first, last = sql.replace("RUN/", f"{folder}/").strip().rstrip(";").split(";\n")
    with duckdb.connect() as connection:
        for statement in first:
            connection.execute(statement)
        assert connection.execute(last).fetchall() == [(3, 3)]
