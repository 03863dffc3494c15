"""Customer lists from Parquet files."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pyarrow as pa

from blocks.crm.files.locate import SourceFile
from blocks.crm.source import Logger, SourceError
from blocks.storage.parquet import ParquetSink, read_frames


def copy_parquet(files: Sequence[SourceFile], target: Path, logger: Logger) -> int:
    """Copy a Parquet file as it is, or several into one; return the number of rows.

    A column whose type differs between files becomes text.

    Raises SourceError, SourceUnavailable.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(file.decompress()) for file in files]
        schemas = [_read_schema(file.name, part) for file, part in zip(files, parts, strict=True)]
        if len(files) == 1:
            shutil.copyfile(parts[0], target)
            rows = pl.scan_parquet(target).select(pl.len()).collect().item()
            files[0].log_rows(logger, "Parquet", 0, rows)
            return rows
        sink = stack.enter_context(ParquetSink(target, _common_schema(files, schemas, logger)))
        for file, part in zip(files, parts, strict=True):
            before = sink.rows
            try:
                for frame in read_frames(part):
                    sink.write(frame)
            except (pl.exceptions.PolarsError, pa.ArrowInvalid, OSError) as error:
                raise _unreadable_error(file.name, error) from None
            file.log_rows(logger, "Parquet", before, sink.rows)
    return sink.rows


def _read_schema(name: str, part: Path) -> pl.Schema:
    try:
        return pl.Schema(pl.read_parquet_schema(part))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable_error(name, error) from None


def _unreadable_error(name: str, error: Exception) -> SourceError:
    return SourceError(f"{name} could not be read as Parquet: {type(error).__name__}.")


def _common_schema(
    files: Sequence[SourceFile], schemas: Sequence[pl.Schema], logger: Logger
) -> pl.Schema:
    """Return the first file's columns, with the type they have in all files, else as text.

    Raises SourceError if one of several types is nested or binary.
    """
    for file, schema in zip(files, schemas, strict=True):
        file.check_columns(schema, schemas[0])
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
