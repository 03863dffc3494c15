"""What the documents tell people to run, run."""

import json
import re
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

import blocks
from blocks import DataLake
from blocks.manifest import run_folder
from deployments.reference import reference
from flows.options import RefreshOptions
from nudgescribe.fields import REASONS
from tasks.guardrails import Guardrails
from tests.lakes import write_run

ROOT = Path(__file__).parents[1]
LAKE = (ROOT / "docs/lake.md").read_text()
CUSTOMERS = (ROOT / "docs/customers.md").read_text()


def code(language: str, document: str = LAKE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


def test_the_reference_is_that_of_the_code() -> None:
    assert (ROOT / "docs/reference.md").read_text() == reference() + "\n"  # make documents


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
    queries = [block for block in code("python") if "spark" not in block]
    assert len(queries) == 6
    for block in queries:
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


def test_the_sources_and_the_mapping_of_lists() -> None:
    sources = [eval(block, vars(blocks)) for block in code("python", CUSTOMERS)]
    kinds = [blocks.SqlCrm, blocks.FileCrm, blocks.HubSpotCrm, blocks.SalesforceCrm]
    assert [type(source) for source in sources] == kinds
    (mapping,) = code("json", CUSTOMERS)
    assert len(RefreshOptions.model_validate({"fields": json.loads(mapping)}).fields) == 4


def test_every_code_of_a_rejected_row_is_explained() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", CUSTOMERS, re.MULTILINE)) == set(REASONS)


def test_every_option_of_a_refresh_is_explained() -> None:
    readme = (ROOT / "README.md").read_text()
    told = re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)
    assert set(told) == {*RefreshOptions.model_fields, *Guardrails.model_fields}
