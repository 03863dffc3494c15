"""Customer lists from Parquet files."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pyarrow as pa

from blocks.crm.files.combine import log_rows, same_columns
from blocks.crm.files.compression import plain
from blocks.crm.files.locate import Found
from blocks.crm.source import Logger, SourceError
from blocks.storage.parquet import ParquetSink, read_frames


def copy_parquet(files: Sequence[Found], target: Path, logger: Logger) -> int:
    """Copies a Parquet file as it is; several become one, where columns of different types are
    text. Raises SourceError.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(plain(file)) for file in files]
        schemas = [_schema(file.name, part) for file, part in zip(files, parts, strict=True)]
        if len(files) == 1:
            shutil.copyfile(parts[0], target)
            rows = pl.scan_parquet(target).select(pl.len()).collect().item()
            log_rows(logger, files[0].name, "Parquet", 0, rows)
            return rows
        sink = stack.enter_context(ParquetSink(target, _common(files, schemas, logger)))
        for file, part in zip(files, parts, strict=True):
            before = sink.rows
            try:
                for frame in read_frames(part):
                    sink.write(frame)
            except (pl.exceptions.PolarsError, pa.ArrowInvalid, OSError) as error:
                raise _unreadable(file.name, error) from None
            log_rows(logger, file.name, "Parquet", before, sink.rows)
    return sink.rows


def _schema(name: str, part: Path) -> pl.Schema:
    try:
        return pl.Schema(pl.read_parquet_schema(part))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> SourceError:
    return SourceError(f"{name} could not be read as Parquet: {type(error).__name__}.")


def _common(files: Sequence[Found], schemas: Sequence[pl.Schema], logger: Logger) -> pl.Schema:
    """The first file's columns, each with the type it has in all files, else as text."""
    for file, schema in zip(files, schemas, strict=True):
        same_columns(file.name, schema, schemas[0])
    common: dict[str, pl.DataType] = {}
    for column in schemas[0]:
        types = {schema[column] for schema in schemas} - {pl.Null()}
        if len(types) > 1:
            kinds = ", ".join(sorted(map(str, types)))
            if any(kind.is_nested() or kind == pl.Binary() for kind in types):
                raise SourceError(f"Column {column} is {kinds} in different files.")
            logger.info("Column %s becomes text: it is %s in different files", column, kinds)
            types = {pl.String()}
        common[column] = types.pop() if types else pl.Null()
    return pl.Schema(common)
