"""Customer lists from a database."""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from pydantic import Field, SecretStr
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from blocks.about import LOGO_URL, documentation
from blocks.crm.source import CrmSource, SourceError
from blocks.parquet import ParquetSink, text_schema

ROWS_AT_ONCE = 20_000


class SqlCrm(CrmSource):
    """
    The customer list is the result of a query.

    Example:
        ```python
        from blocks import SqlCrm

        crm = SqlCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "SQL CRM"
    _logo_url = LOGO_URL
    _documentation_url = documentation("customer-lists")

    url: SecretStr = Field(description="SQLAlchemy URL of the database.")
    query: str = Field(
        description="The query whose rows are the customers and whose columns are the fields."
    )

    def extract(self, target: Path) -> int:
        try:
            engine = create_engine(self.url.get_secret_value(), poolclass=NullPool)
            streamed = engine.execution_options(stream_results=True, max_row_buffer=ROWS_AT_ONCE)
            with streamed.connect() as connection:
                # As the driver takes it: a colon or a percent sign in the query is no parameter.
                result = connection.exec_driver_sql(self.query)
                columns = list(result.keys())
                batches = ([tuple(row) for row in rows] for rows in result.partitions(ROWS_AT_ONCE))
                return _write_rows(columns, batches, target)
        except ImportError as error:
            raise SourceError(f"The database's driver {error.name} is not installed.") from None
        except SQLAlchemyError as error:
            # The database's own text may repeat a value, the URL holds a password.
            raise SourceError(
                f"The SQL CRM could not be read: {type(error).__name__}. "
                "Run the query in a SQL client to see the database's message."
            ) from None


def _write_rows(columns: list[str], batches: Iterator[list[tuple[Any, ...]]], target: Path) -> int:
    """Values become text as they come; a column of nothing but dates becomes a date column."""
    if len(set(columns)) < len(columns):
        raise SourceError("The query returns two columns of one name: give them names with AS.")
    kinds: dict[str, set[type]] = {column: set() for column in columns}
    with TemporaryDirectory() as folder:
        draft = Path(folder) / "rows.parquet"
        with ParquetSink(draft, text_schema(columns)) as sink:
            for rows in batches:
                values = dict(zip(columns, zip(*rows, strict=True), strict=True))
                for column in columns:
                    kinds[column] |= {type(value) for value in values[column] if value is not None}
                frame = {name: [_text(each) for each in given] for name, given in values.items()}
                sink.write(pl.DataFrame(frame, schema=text_schema(columns)))
        dates = [column for column in columns if kinds[column] == {date}]
        pl.scan_parquet(draft).with_columns(pl.col(dates).str.to_date("%Y-%m-%d")).sink_parquet(
            target, compression="zstd", compression_level=1
        )
    return sink.rows


def _text(value: object) -> str | None:
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat(sep=" ")
        case bytes() | bytearray() | memoryview():
            raise SourceError("The query returns binary values: convert them to text in the query.")
        case _:
            return str(value)
