"""What the documents tell people to run, run."""

import inspect
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest
import yaml
from pydantic import SecretStr

import blocks
from blocks import DataLake, Portfolio
from blocks.storage import history, manifest, segments, tombstones
from blocks.storage.handover import Changes, write_changes
from blocks.storage.manifest import run_folder
from blocks.storage.reader import read_frames
from deployments.reference import reference
from deployments.schedules import RENAMED
from flows.options import RefreshOptions
from flows.portfolio import portfolio_refresh
from nudgescribe import __version__
from nudgescribe.fields import REASONS
from tasks.customers.guardrails import Guardrails
from tasks.journal import entries
from tests.support.lakes import write_run

ROOT = Path(__file__).parents[1]
LAKE = (ROOT / "docs/lake.md").read_text()
CUSTOMERS = (ROOT / "docs/customers.md").read_text()


def document(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text()


def code(language: str, document: str = LAKE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


def test_reference_is_that_of_the_code() -> None:
    assert (ROOT / "docs/reference.md").read_text() == reference() + "\n"  # make documents


def test_newest_entry_of_the_changelog_is_of_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = "dev" not in __version__
    assert versions[0] == (__version__ if released else "Unreleased")
    assert versions[-1] == "0.1.0"


def test_upgrade_guide_has_the_versions_of_schemas_and_the_new_names() -> None:
    page = document("upgrade")
    told = re.findall(r"^\| .+? \| (\d+) \| ", page, re.MULTILINE)
    schemas = (manifest, entries, history, segments, tombstones)
    assert [int(version) for version in told] == [each.SCHEMA_VERSION for each in schemas]
    told = dict(re.findall(r"^\| `(\S+/\S+)` \| `(\S+/\S+)` \|", page, re.MULTILINE))
    stored = json.loads((ROOT / "tests/data/today/parameters.json").read_text())
    assert told == {old: f"{old.partition('/')[0]}/{RENAMED[old]}" for old in stored}


def test_table_of_deployments_has_those_of_prefect_yaml() -> None:
    told = re.findall(r"^\| `([\w-]+/[\w-]+)` \|", document("schedule"), re.MULTILINE)
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    flows = {each["entrypoint"].rpartition(".")[2] for each in listed}
    assert len(flows) == len({name.partition("/")[0] for name in told})
    assert [name.partition("/")[2] for name in told] == [each["name"] for each in listed]


def test_table_of_events_has_those_of_the_flows() -> None:
    told = re.findall(r"^\| `nudgeflow\.([\w.]+)` \|", document("schedule"), re.MULTILINE)
    code = "".join(file.read_text() for file in (ROOT / "flows").rglob("*.py"))
    assert sorted(told) == sorted(re.findall(r'announce(?:_run)?\(\s*"([\w.]+)"', code))


def test_table_of_errors_says_what_to_do_for_each() -> None:
    rows = document("recover").partition("## Errors")[2]
    told = re.findall(r"\*(\w+)\*", "".join(re.findall(r"^\| (\*.*?) \|", rows, re.MULTILINE)))
    known = re.findall(
        r"^\| `(\w+)` \|", document("reference").partition("## Errors")[2], re.MULTILINE
    )
    assert sorted(told) == sorted(known)


def test_portfolio_of_the_document_is_read_and_explained(tmp_path: Path) -> None:
    (example,) = code("yaml", document("portfolio"))
    (tmp_path / "portfolio.yaml").write_text(example)
    portfolio = Portfolio.from_file(str(tmp_path / "portfolio.yaml"))
    assert (len(portfolio.campaigns), len(portfolio.workspaces)) == (2, 1)
    options = [RefreshOptions.model_validate(each.options) for each in portfolio.campaigns]
    assert options[1].guardrails.max_shrink == 0.5
    told = set(re.findall(r"`(\w+)`", document("portfolio").partition("A campaign is")[0]))
    assert set(inspect.signature(portfolio_refresh.fn).parameters) <= told


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    lake = DataLake(root=str(tmp_path / "lake"), format="delta")
    write_run(lake, "C", 1, {"000123": "Hello,\nyou"}, {"NA": ""})
    write_run(lake, "C", 1, {"000123": "Hello,\nyou"}, {"NA": "", "x": "y"})
    write_run(lake, "C", 2, {"000123": "Hello"}, {"new": "!"})
    return lake


def test_lake_queries_give_what_was_written(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataLake, "load", lambda name: lake)
    names: dict[str, object] = {"campaign_id": "C", "lake": lake}
    for block in (each for each in code("python") if not re.search("LAKE/|spark", each)):
        exec(block, names)
    assert isinstance(frame := names["frame"], pd.DataFrame)
    assert sorted(frame["customer_id"]) == ["000123", "NA", "x"]
    assert isinstance(lengths := names["lengths"], pl.DataFrame)
    assert round(lengths.item(), 2) == 3.67
    assert sorted(names["rows"]) == [("000123", 10), ("NA", 0), ("x", 1)]
    assert repr(names["diff"]) == "RunDiff(added=1, removed=2, changed=1, unchanged=0)"
    delta = pl.scan_delta(lake.files.url("messages"))
    assert delta.group_by("run_number").len().sort("run_number").collect().rows() == [
        (1, 3),
        (2, 2),
    ]


def test_lake_sql_counts_what_was_written(lake: DataLake) -> None:
    (sql,) = code("sql")
    folder = lake.files.url(run_folder("C", 1))
    *first, last = sql.replace("RUN/", f"{folder}/").strip().rstrip(";").split(";\n")
    with duckdb.connect() as connection:
        for statement in first:
            connection.execute(statement)
        assert connection.execute(last).fetchall() == [(3, 3)]


def test_options_and_query_of_the_audience_are_valid(tmp_path: Path) -> None:
    page = document("audience")
    suppress, holdout = map(json.loads, code("json", page))
    assert [*suppress["suppress"]["$ref"]] == ["block_document_slug"]
    assert RefreshOptions.model_validate(holdout).holdout
    held_out = "holdouts/campaign_id=C/run_number=2/customers.parquet"
    for path, ids in {
        "messages/campaign_id=C/run_number=2/part.parquet": ["1", "2"],
        held_out: ["3"],
    }.items():
        (tmp_path / path).parent.mkdir(parents=True)
        pl.DataFrame({"customer_id": ids}).write_parquet(tmp_path / path)
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE sales AS SELECT * FROM "
            "(VALUES ('1', 1), ('2', 0), ('3', 0)) AS sold(customer_id, bought)"
        )
        (sql,) = code("sql", page)
        rows = connection.execute(sql.replace("LAKE/", f"{tmp_path}/")).fetchall()
    assert rows == [(False, 2, 0.5), (True, 1, 0.0)]


def test_options_and_queries_of_the_hand_over_are_valid(tmp_path: Path) -> None:
    page = document("hand-over")
    (options,) = map(json.loads, code("json", page))
    assert {*options} <= {*RefreshOptions.model_fields}
    (block,) = code("python", page)
    assert eval(block, vars(blocks)).table == "crm.messages"
    lake = DataLake(root=str(tmp_path / "lake"))
    write_run(lake, "C", 1, {"000123": "Hello,\nyou", "x": "y"})
    write_run(lake, "C", 2, {"000123": "Hello"}, {"NA": ""})
    table = blocks.SqlTable(url=SecretStr(f"sqlite:///{tmp_path}/team.db"))
    for number in (1, 2):
        run = lake.manifest("C", number)
        assert run
        before = lake.manifest("C", number - 1)
        rows = read_frames(lake.files, before) if before else ()
        write_changes(lake.files, Changes(lake.files, run, rows), run, "csv")
        table.replace(lake.files, run)
    (sql,) = code("sql", page)
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{tmp_path}/lake/'")
        counts = connection.execute(sql).fetchall()
    assert [(int(run), change, count) for run, change, count in counts] == [
        (1, "added", 2),
        (2, "added", 1),
        (2, "changed", 1),
        (2, "removed", 1),
    ]
    (sql,) = code("sql table", page)
    with closing(sqlite3.connect(tmp_path / "team.db")) as database:
        assert database.execute(sql).fetchall() == [("000123", "Hello"), ("NA", "")]


def test_sources_and_mapping_of_lists_are_valid() -> None:
    sources = [eval(block, vars(blocks)) for block in code("python", CUSTOMERS)]
    kinds = [blocks.SqlCrm, blocks.FileCrm, blocks.HubSpotCrm, blocks.SalesforceCrm]
    assert [type(source) for source in sources] == kinds
    (mapping,) = code("json", CUSTOMERS)
    assert len(RefreshOptions.model_validate({"fields": json.loads(mapping)}).fields) == 4


def test_blocks_without_secrets_are_valid() -> None:
    (example,) = code("python", document("secrets"))
    exec(example, dict(vars(blocks)))


def test_code_of_a_rejected_row_is_explained() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", CUSTOMERS, re.MULTILINE)) == set(REASONS)


def test_option_of_a_refresh_is_explained() -> None:
    readme = (ROOT / "README.md").read_text()
    told = re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)
    assert set(told) == {*RefreshOptions.model_fields, *Guardrails.model_fields}
