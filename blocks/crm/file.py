"""Customer lists from files."""

from pathlib import Path
from typing import BinaryIO

import polars as pl
from fsspec.core import url_to_fs
from prefect.types import SecretDict
from pydantic import Field

from blocks.about import LOGO_URL, documentation
from blocks.crm.source import CrmSource, SourceError
from blocks.parquet import ParquetSink
from nudgescribe import rfc4180


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
