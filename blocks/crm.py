"""Where customer lists come from: a database or a file, each extracted into one Parquet file."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import polars as pl
from fsspec.core import url_to_fs
from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field, SecretStr
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from blocks.about import LOGO_URL, documentation
from blocks.parquet import ParquetSink, text_schema
from nudgescribe import rfc4180
from nudgescribe.errors import NudgeflowError

ROWS_AT_ONCE = 20_000


class SourceError(NudgeflowError):
    advice = "Nothing was changed. Correct the CRM block, then start again."


class CrmSource(Block, ABC):
    """A place customer lists are pulled from."""

    @abstractmethod
    def extract(self, target: Path) -> int:
        """Writes the list to a Parquet file, one column per column of the source, and returns its
        number of rows. Text stays text. Raises SourceError.
        """


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


class FileCrm(CrmSource):
    """
    The customer list is a CSV or Parquet file.

    Example:
        ```python
        from blocks import FileCrm

        crm = FileCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "File CRM"
    _logo_url = LOGO_URL
    _documentation_url = documentation("customer-lists")

    path: str = Field(description="Path or fsspec URL of the file; ends in .csv or .parquet.")
    storage_options: SecretDict | None = Field(
        default=None, description="Options of the file system, such as its keys."
    )

    def extract(self, target: Path) -> int:
        options = self.storage_options.get_secret_value() if self.storage_options else {}
        kind = self.path.rpartition(".")[2].lower()
        if kind not in ("csv", "parquet"):
            raise SourceError(f"{self.path}: not a .csv or .parquet file.")
        try:
            fs, path = url_to_fs(self.path, **options)
            if kind == "csv":
                with fs.open(path, "rb") as file:
                    return _copy_csv(file, target)
            fs.get_file(path, str(target))
            return pl.scan_parquet(target).select(pl.len()).collect().item()
        except rfc4180.MalformedCsv as error:
            raise SourceError(f"{self.path}: {error.problem}") from None
        except (OSError, ImportError, ValueError, pl.exceptions.PolarsError) as error:
            raise SourceError(f"{self.path} could not be read: {type(error).__name__}.") from None


def _copy_csv(file: BinaryIO, target: Path) -> int:
    frames = rfc4180.frames(file)
    first = next(frames)
    with ParquetSink(target, first.schema) as sink:
        sink.write(first)
        for frame in frames:
            sink.write(frame)
    return sink.rows


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
