"""Customer lists out of databases into Parquet: this project's way against others, in turns.

python -m benchmarks.extract [ROWS]

Twelve columns of text, about a hundred bytes a row, in a PostgreSQL and a SQLite of this machine.
Each way runs in a fresh process and leaves one Parquet file. Peak memory is what comes on top of
the imports. PostgreSQL's own processes are not in the CPU seconds.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.measuring import Measured, cpu_seconds, draw, read_numbers, status
from tests.support import databases

ROUNDS = 3
QUERY = "SELECT * FROM customers"
# One table in both: {id} is a row's number, from 0 on.
ROWS_AT_ONCE = 50_000
COLUMNS = {
    "customer_id": "substr(CAST(100000000 + i AS text), 2)",
    "first_name": "'First' || i % 997",
    "last_name": "'Last, \"x\"' || i % 1009",
    "email": "'person' || i || '@example.com'",
    "born": "(1950 + i % 60) || '-0' || (1 + i % 9) || '-1' || i % 10",
    "plan": "'Plan ' || i % 7",
    "spend": "i % 5000 || '.50'",
    "city": "'Zürich ' || i % 50",
    "age": "'' || i % 100",
    "note": "CASE WHEN i % 10 < 9 THEN 'note ' || i % 1000 END",
    "country": "'GB'",
    "opted": "CASE WHEN i % 2 = 0 THEN 'y' ELSE 'n' END",
}
"""Of row number i, in either database's SQL."""
NUMBERS = """
WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < {})
SELECT i FROM n
"""


def ours(url: str, target: Path) -> int:
    """Use the block."""
    from blocks import SqlCrm

    return SqlCrm.model_validate({"url": url, "query": QUERY}).extract(target)


def ours_bound(url: str, target: Path) -> int:
    """Use the block with a parameter, so that PostgreSQL cannot COPY."""
    from blocks import SqlCrm

    query = f"{QUERY} WHERE country = :country"
    values = {"url": url, "query": query, "parameters": {"country": "GB"}}
    return SqlCrm.model_validate(values).extract(target)


def pandas(url: str, target: Path) -> int:
    """Run the script one writes first: pandas."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url).execution_options(stream_results=True)
    with closing(engine.connect()) as connection:
        chunks = _untyped("pandas").read_sql_query(text(QUERY), connection, chunksize=ROWS_AT_ONCE)
        table_of = _untyped("pyarrow").Table.from_pandas
        return _written(target, map(table_of, chunks))


def copied(url: str, target: Path) -> int:
    """Copy by COPY, parsed by polars: PostgreSQL's fastest by hand."""
    import polars as pl
    import psycopg

    def tables() -> Iterator[Any]:
        statement = f"COPY ({QUERY}) TO STDOUT (FORMAT csv)"
        with connection.cursor().copy(statement.encode()) as copy:
            rows = iter(copy)
            while some := b"".join(bytes(row) for row in islice(rows, ROWS_AT_ONCE)):
                yield pl.read_csv(some, has_header=False, infer_schema=False).to_arrow()

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return _written(target, tables())


def connectorx(url: str, target: Path) -> int:
    """Use connectorx, SQLite's fastest if each value has the type of its column's first."""
    import pyarrow as pa

    stream = _untyped("connectorx").read_sql(
        url.replace("////", "///"), QUERY, return_type="arrow_stream", batch_size=ROWS_AT_ONCE
    )
    return _written(target, (pa.Table.from_batches([batch]) for batch in stream))


def _written(target: Path, tables: Iterator[Any]) -> int:
    from pyarrow.parquet import ParquetWriter

    first = next(tables)
    writer = ParquetWriter(
        target, first.schema, compression="zstd", compression_level=1, use_dictionary=False
    )
    rows = 0
    for table in chain([first], tables):
        writer.write_table(table)
        rows += table.num_rows
    writer.close()
    return rows


def _untyped(module: str) -> Any:
    return import_module(module)


WAYS: dict[str, tuple[str, Callable[[str, Path], int], str]] = {
    "postgresql ours": ("postgresql", ours, "blocks blocks.crm.sql.postgresql"),
    "postgresql ours, bound": ("postgresql", ours_bound, "blocks blocks.crm.sql.postgresql"),
    "postgresql copy": ("postgresql", copied, "polars psycopg pyarrow.parquet"),
    "postgresql pandas": ("postgresql", pandas, "pandas sqlalchemy psycopg pyarrow.parquet"),
    "sqlite ours": ("sqlite", ours, "blocks"),
    "sqlite ours, bound": ("sqlite", ours_bound, "blocks"),
    "sqlite connectorx": ("sqlite", connectorx, "connectorx pyarrow.parquet"),
    "sqlite pandas": ("sqlite", pandas, "pandas sqlalchemy pyarrow.parquet"),
}
"""Each with its database and what it imports before the clock starts."""


def child(name: str, url: str) -> Measured:
    """Run a way in this process, and return what was measured."""
    _, way, modules = WAYS[name]
    for module in modules.split():
        import_module(module)
    with TemporaryDirectory() as folder:
        rss, cpu, start = status("VmRSS"), cpu_seconds(), perf_counter()
        rows = way(url, Path(folder) / "list.parquet")
        wall, cpu = perf_counter() - start, cpu_seconds() - cpu
    return Measured(wall, cpu, rows, rss, status("VmHWM"))


def measure(name: str, url: str, rows: int) -> Measured:
    """Run a way in a process of its own, and return what was measured."""
    command = [sys.executable, "-m", "benchmarks.extract", "--child", name, url]
    printed = subprocess.check_output(command)  # noqa: S603 - ours
    measured = Measured(**json.loads(printed.splitlines()[-1]))
    if measured.rows != rows:
        raise SystemExit(f"{name}: {measured.rows:,} rows instead of {rows:,}")
    return measured


def fill(url: str, numbers: str) -> None:
    """Create the table with a row for each of the `numbers`, a query for a column i."""
    from sqlalchemy import create_engine

    columns = ", ".join(f"{name} TEXT" for name in COLUMNS)
    with create_engine(url).begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE customers ({columns})")
        values = ", ".join(COLUMNS.values()).replace("%", "%%" if "+psycopg" in url else "%")
        connection.exec_driver_sql(
            f"INSERT INTO customers SELECT {values} FROM ({numbers}) AS n"  # noqa: S608 - ours
        )


def main(rows: int) -> None:
    """Measure the ways in turns, and print the medians."""
    names = [name for name, (_, _, modules) in WAYS.items() if find_spec(modules.split()[0])]
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    with TemporaryDirectory() as folder, databases.postgresql() as server:
        urls = {"sqlite": f"sqlite:///{folder}/crm.db"}
        urls["postgresql"] = databases.new_database(server)
        fill(urls["postgresql"], f"SELECT generate_series(0, {rows - 1}) AS i")
        fill(urls["sqlite"], NUMBERS.format(rows - 1))
        for _ in range(ROUNDS):
            for name in names:
                runs[name].append(measure(name, urls[WAYS[name][0]], rows))
    for name, each in runs.items():
        rate = rows / min(run.wall for run in each)
        cpu = median(run.cpu for run in each)
        peak = median(run.peak - run.rss for run in each) / 1024
        print(f"{name:24}{rate:12,.0f} rows/s {cpu:8.2f} CPU s {peak:7.0f} MiB")
    used = {name: median(run.cpu for run in each) for name, each in runs.items()}
    draw("extract", f"{rows:,} customers out of a database into Parquet", used, "CPU s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asdict(child(*sys.argv[2:]))))
    else:
        main(*read_numbers(rows=1_000_000))
