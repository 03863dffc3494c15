"""What a run changed, handed over as a file and to a table of a database."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import sqlalchemy
from prefect import flow
from pydantic import SecretStr, ValidationError

from blocks import DataLake, SqlTable, table
from blocks.saved import BlockNotSaved
from blocks.storage.errors import LakeError
from blocks.table import TableUnavailable, TableUnusable
from flows.export import export_messages
from flows.options import ExportOptions, RefreshOptions
from flows.refresh import campaign_refresh
from flows.retention import RetentionOptions, lake_retention
from tasks.export.hand_over import copy_messages, write_handover
from tests.conftest import SEEDED_CUSTOMERS, Company, Save, Saved, customers
from tests.support.databases import new_database
from tests.support.deployed import changes
from tests.support.lakes import write_run

KILLED = """
import os, sys
from blocks import DataLake, SqlTable, table
at, done = sys.argv[4], getattr(table, sys.argv[4])
def die(*arguments):
    done(*arguments)
    os._exit(9)
setattr(table, at, die)
lake = DataLake(root=sys.argv[1])
SqlTable(url=sys.argv[2]).replace(lake.files, lake.manifest("C", int(sys.argv[3])))
"""


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "postgresql":
        return f"{request.param}:///{tmp_path}/team.db"
    return new_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    """Of the second run, one customer is new, one has another message, one is gone."""
    lake = DataLake(root=str(tmp_path / "lake"))
    write_run(lake, "C", 1, {"000123": "Hello,\nyou", "NA": "", "x": "y"})
    write_run(lake, "C", 2, {"000123": "Hello", "NA": ""}, {"new": "¡!"})
    return lake


def rows(url: str, columns: str = "customer_id, message, run_number", where: str = "") -> list[Any]:
    with connected(url) as connection:
        query = f"SELECT {columns} FROM nudgescribe_messages {where} ORDER BY customer_id"
        return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]


def connected(url: str) -> Any:
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).begin()


def execute(url: str, statement: str) -> None:
    with connected(url) as connection:
        connection.execute(sqlalchemy.text(statement))


def table_of(url: str) -> SqlTable:
    return SqlTable(url=SecretStr(url))


def copy(lake: DataLake, url: str, run: int) -> list[int]:
    manifest = lake.manifest("C", run)
    assert manifest
    return [*table_of(url).replace(lake.files, manifest).values()]


def refresh(company: Company, saved: Saved, **options: Any) -> Any:
    given = {"guardrails": {"max_shrink": 1, "max_growth": 9}, **options}
    return campaign_refresh(
        company.seeded.campaign_id, **saved.blocks, options=RefreshOptions.model_validate(given)
    )


def in_lake(saved: Saved, campaign: str, run: int) -> dict[str, str]:
    return dict(saved.lake.scan(campaign, run).collect().rows())


# ---- the table --------------------------------------------------------------------------------


def test_table_has_the_rows_of_the_run_and_only_what_differs_is_written(
    lake: DataLake, url: str
) -> None:
    assert copy(lake, url, 1) == [3, 0, 0]
    execute(url, "INSERT INTO nudgescribe_messages SELECT 'other', customer_id, message, "
                 "run_number, written_at FROM nudgescribe_messages")  # fmt: skip
    before = rows(url, "written_at", "WHERE customer_id = 'NA'")
    assert copy(lake, url, 2) == [1, 1, 1]
    assert rows(url, where="WHERE campaign_id = 'C'") == [
        ("000123", "Hello", 2),
        ("NA", "", 1),
        ("new", "¡!", 2),
    ]
    assert rows(url, "written_at", "WHERE customer_id = 'NA'") == before
    assert len(rows(url, where="WHERE campaign_id = 'other'")) == 3
    assert copy(lake, url, 2) == [0, 0, 0]
    # Somebody has changed rows there.
    execute(url, "DELETE FROM nudgescribe_messages WHERE customer_id = 'new'")
    execute(url, "UPDATE nudgescribe_messages SET message = '?' WHERE customer_id = 'NA'")
    assert copy(lake, url, 2) == [1, 1, 0]


@pytest.mark.parametrize("step", ["_read", "_remove", "_write"])
def test_copy_that_is_killed_leaves_the_rows_as_they_were(
    lake: DataLake, url: str, step: str
) -> None:
    copy(lake, url, 1)
    before = rows(url)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, lake.root, url, "2", step], env={**os.environ}
    )
    assert process.returncode == 9
    assert rows(url) == before
    assert copy(lake, url, 2) == [1, 1, 1]
    assert [row[0] for row in rows(url)] == ["000123", "NA", "new"]


def test_of_two_copies_at_once_one_is_whole(
    lake: DataLake, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(lake, "C", 3, {"000123": "Hello again"}, {"newer": "Hi"})
    copy(lake, url, 1)
    read = table._read  # pyright: ignore[reportPrivateUsage]

    def meanwhile(*arguments: Any) -> Any:
        rows = [*read(*arguments)]
        monkeypatch.setattr(table, "_read", read)
        with suppress(TableUnavailable):
            copy(lake, f"{url}?timeout=0" if url.startswith("sqlite") else url, 3)
        return iter(rows)

    monkeypatch.setattr(table, "_read", meanwhile)
    with suppress(TableUnavailable):
        copy(lake, url, 2)
    runs = [
        {("000123", "Hello"), ("NA", ""), ("new", "¡!")},
        {("000123", "Hello again"), ("newer", "Hi")},
    ]
    assert {row[:2] for row in rows(url)} in runs
    assert copy(lake, url, 3)
    assert {row[:2] for row in rows(url)} == runs[1]


def test_copy_of_a_run_that_is_not_the_newest_any_more_is_made_good(
    lake: DataLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, replace = f"sqlite:///{tmp_path}/team.db", SqlTable.replace

    def slow(self: SqlTable, files: Any, run: Any) -> dict[str, int]:
        if run.run_number == 2:
            write_run(lake, "C", 3, {"newer": "Hi"})
            copy(lake, url, 3)
        return replace(self, files, run)

    monkeypatch.setattr(SqlTable, "replace", slow)
    flow(lambda: copy_messages(lake, "C", table_of(url)))()
    assert rows(url) == [("newer", "Hi", 3)]


def test_campaign_without_a_run_is_not_copied(lake: DataLake, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/team.db"
    with pytest.raises(LakeError, match="Campaign nobody has no run in the lake"):
        flow(lambda: copy_messages(lake, "nobody", table_of(url)))()


def test_file_that_is_there_is_not_written_again(lake: DataLake) -> None:
    def path_of_change() -> str:
        return write_handover(lake, "C", 2, "csv")

    path = flow(path_of_change)()
    lake.files.write(path, b"as somebody has it")
    assert flow(path_of_change)() == path
    assert lake.files.read(path) == b"as somebody has it"


def test_many_rows_are_copied(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS_AT_ONCE", 500)
    lake = DataLake(root=str(tmp_path / "many"))
    first = {str(number): f"Hello {number}" for number in range(1_200)}
    write_run(lake, "C", 1, first)
    write_run(lake, "C", 2, {id_: f"{text}!" for id_, text in list(first.items())[:700]})
    assert copy(lake, url, 1) == [1_200, 0, 0]
    assert copy(lake, url, 2) == [0, 700, 500]
    assert len(rows(url)) == 700


def test_table_that_cannot_be_used_is_told_without_values(lake: DataLake, url: str) -> None:
    key = "campaign_id TEXT, customer_id TEXT, message TEXT, run_number INT, written_at TIMESTAMP"
    execute(url, f"CREATE TABLE nudgescribe_messages ({key.partition(', run')[0]})")
    with pytest.raises(TableUnusable, match="has no column run_number, written_at"):
        table_of(url).check()
    execute(url, "DROP TABLE nudgescribe_messages")
    execute(url, f"CREATE TABLE nudgescribe_messages ({key})")
    with pytest.raises(TableUnusable, match="primary key of the table nudgescribe_messages is not"):
        table_of(url).check()
    execute(url, "DROP TABLE nudgescribe_messages")
    ours = f"{key}, PRIMARY KEY (customer_id, campaign_id), CHECK (message <> 'y')"
    execute(url, f"CREATE TABLE nudgescribe_messages ({ours})")
    table_of(url).check()
    with pytest.raises(TableUnusable, match=r"answered IntegrityError( \w+)?\.") as caught:
        copy(lake, url, 1)
    assert "Hello" not in str(caught.value)
    assert caught.value.__context__ is None
    assert rows(url) == []


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("hunter2", TableUnusable, "not of SQLAlchemy's form"),
        ("nosuch://a:hunter2@localhost/db", TableUnusable, "that SQLAlchemy does not know"),
        ("mysql+nosuch://a:hunter2@localhost/db", TableUnusable, "that SQLAlchemy does not know"),
        ("mssql+pymssql://a:hunter2@localhost/db", TableUnusable, "driver pymssql is not"),
        ("postgresql://a:hunter2@127.0.0.1:9/db", TableUnavailable, "answered OperationalError"),
        ("sqlite:////no/such/folder/team.db", TableUnavailable, "answered OperationalError"),
    ],
)
def test_database_that_cannot_be_used_is_told_without_the_password(
    url: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        table_of(url).check()
    assert "hunter2" not in str(caught.value)


def test_block_with_a_relative_file_or_no_name_is_refused() -> None:
    for url in ("sqlite:///team.db", "duckdb:///team.db"):
        with pytest.raises(ValidationError, match="absolute path"):
            table_of(url)
    for url in (
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "duckdb:///:memory:",
    ):
        with pytest.raises(ValidationError, match="must name a file"):
            table_of(url)
    for name in ("", "a.b.c", "a b", "a;"):
        with pytest.raises(ValidationError, match="name of a table"):
            SqlTable(url=SecretStr("sqlite:////team.db"), table=name)


# ---- flows ------------------------------------------------------------------------------------


@pytest.fixture
def saved(reviewed_company: Company, save: Save) -> Saved:
    return save(reviewed_company, customers(40))


@pytest.mark.parametrize("url", ["duckdb", "postgresql"], indirect=True)
def test_refresh_hands_over_what_it_changed(
    reviewed_company: Company, saved: Saved, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    company, campaign = reviewed_company, reviewed_company.seeded.campaign_id
    table = table_of(url)
    table.save(saved.name)
    given = {"hand_over": "csv", "copy_to": table.to_reference()}
    refresh(company, saved, **given)
    run = in_lake(saved, campaign, 2)
    folder = saved.root / f"handover/campaign_id={campaign}"
    first = pl.read_csv(folder / "run_number=2/changes-00000.csv", infer_schema=False)
    assert first.columns == ["customer_id", "change", "message"]
    assert {*first["change"]} == {"added"}
    assert dict(first[["customer_id", "message"]].rows()) == run
    assert {id_: message for id_, message, _ in rows(url)} == run

    moved = pl.when(pl.col("customer_id") == min(run)).then(pl.lit("Premium"))
    listed = customers(45).with_columns(moved.otherwise("plan").alias("plan"))
    listed.filter(pl.col("customer_id") != max(run)).write_csv(saved.crm_file)
    refresh(company, saved, **given)
    now = in_lake(saved, campaign, 3)
    second = pl.read_csv(folder / "run_number=3/changes-00000.csv", infer_schema=False)
    told = {id_: (change, message) for id_, change, message in second.rows()}
    assert told == {
        **{id_: ("added", now[id_]) for id_ in now.keys() - run.keys()},
        **{id_: ("changed", now[id_]) for id_ in now if id_ in run and now[id_] != run[id_]},
        **dict.fromkeys(run.keys() - now.keys(), ("removed", None)),
    }
    assert {change for change, _ in told.values()} >= {"added", "removed"}
    assert {id_: message for id_, message, _ in rows(url)} == now
    logged = caplog.text
    assert f"Copied run 3 to sql-table/{saved.name}: " in logged
    assert not any(id_ in logged for id_ in now)

    # The files go with their run.
    lake_retention(saved.lake, saved.account, RetentionOptions(runs_kept=1, dry_run=False))
    assert [each.name for each in folder.glob("*/*")] == ["changes-00000.csv"]


@pytest.mark.parametrize("url", ["duckdb"], indirect=True)
def test_export_hands_over_past_runs_in_the_format_asked_for(
    reviewed_company: Company, saved: Saved, url: str
) -> None:
    company, campaign = reviewed_company, reviewed_company.seeded.campaign_id
    refresh(company, saved)
    table = table_of(url)
    table.save(saved.name)
    for format_ in ("csv", "parquet"):
        options = ExportOptions.model_validate({"hand_over": format_, "copy_to": table})
        export_messages(campaign, saved.account, saved.lake, "all", options)
    folder = saved.root / "handover"
    assert {each.name for each in folder.glob("*/*/*")} == {"changes-00000.parquet"}
    with duckdb.connect() as connection:
        counts = connection.execute(
            "SELECT run_number, change, count(*) FROM "
            f"read_parquet('{folder}/*/*/*.parquet', hive_partitioning = true) GROUP BY ALL"
        ).fetchall()
    counted = {(run, change): count for run, change, count in counts}
    assert counted[1, "added"] == SEEDED_CUSTOMERS
    diff = saved.lake.diff(campaign, 1, 2)
    assert counted.get((2, "removed"), 0) == diff.removed
    assert counted.get((2, "changed"), 0) == diff.changed
    assert {id_: message for id_, message, _ in rows(url)} == in_lake(saved, campaign, 2)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_table_is_checked_before_anything_is_changed(
    reviewed_company: Company, saved: Saved, url: str
) -> None:
    execute(url, "CREATE TABLE nudgescribe_messages (customer_id TEXT)")
    table = table_of(url)
    with pytest.raises(BlockNotSaved):
        refresh(reviewed_company, saved, copy_to=table)
    table.save(saved.name)
    before = changes(reviewed_company)
    with pytest.raises(TableUnusable, match="has no column campaign_id"):
        refresh(reviewed_company, saved, copy_to=table)
    assert changes(reviewed_company) == before
    with pytest.raises(ValidationError):
        RefreshOptions.model_validate({"hand_over": "xlsx"})


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_copy_that_failed_is_made_by_the_retry_of_the_refresh(
    reviewed_company: Company, saved: Saved, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(url)
    table.save(saved.name)
    with monkeypatch.context() as patched:
        error = TableUnusable("The table is away.")

        def fail(*_: object) -> None:
            raise error

        patched.setattr("blocks.table._write", fail)
        with pytest.raises(TableUnusable, match="is away"):
            refresh(reviewed_company, saved, copy_to=table)
    assert len(reviewed_company.history()) == 2
    refresh(reviewed_company, saved, copy_to=table)
    # It has gone on with the same run.
    assert len(reviewed_company.history()) == 2
    assert len(rows(url)) == 40
