"""The block for customer lists in files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from prefect.types import SecretDict
from pydantic import Field, ValidationInfo, field_validator

from blocks.crm.errors import SourceError
from blocks.crm.files.csv import CsvDialect, read_csv
from blocks.crm.files.locate import ListFormat, SourceFile, detect_format, locate, redact_url
from blocks.crm.files.ndjson import read_ndjson
from blocks.crm.files.parquet import read_parquet
from blocks.crm.source import CrmSource
from blocks.documentation import documentation_url
from blocks.secrets import read_secrets
from blocks.storage.locations import check_location
from nudgescribe.errors import first_ten
from nudgescribe.lazy import pa


class FileCrm(CrmSource):
    """
    A customer list in a CSV, Parquet or NDJSON file, or in several.

    Example:
        ```python
        from blocks import FileCrm

        crm = FileCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "File CRM"
    _documentation_url = documentation_url("customer-lists")

    path: str = Field(
        description="Absolute path or fsspec URL of the file, such as s3://crm/list.csv.gz, or a "
        "pattern for several files with the same columns, such as s3://crm/list-*.csv. Put keys, "
        "passwords and signatures in storage_options: Prefect does not encrypt the path."
    )
    format: ListFormat | None = Field(
        default=None,
        description="Format of the file. If empty, its name decides: .csv, .tsv, .txt, .parquet, "
        ".ndjson or .jsonl, followed by .gz, .zst or .zstd if it is compressed.",
    )
    delimiter: str | None = Field(
        default=None,
        description=r"Delimiter of a CSV file, \t for a tab. If empty, the comma, semicolon, tab "
        "or vertical bar in its first row.",
    )
    encoding: str | None = Field(
        default=None,
        description="Encoding of a CSV or NDJSON file, such as windows-1252. If empty, the one its "
        "byte order mark says, else UTF-8.",
    )
    quoting: Literal["rfc4180", "none"] = Field(
        default="rfc4180",
        description='Quoting of a CSV file. "rfc4180": values may be in quotes, and quotes within '
        'them are doubled; "none": every quote is text.',
    )
    escape: Literal["backslash"] | None = Field(
        default=None,
        description="Character before a quote within a quoted value of a CSV file, if it is not "
        "doubled: backslash, as Spark and MySQL write it.",
    )
    header: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Column names, for a CSV file without a header row.",
    )
    storage_options: SecretDict | None = Field(
        default=None,
        description="Options of the file system, such as its keys. A value may be a "
        "reference: env:NAME, file:/PATH or prefect:BLOCK.",
    )

    @field_validator("path")
    @classmethod
    def _means_the_same_everywhere(cls, path: str) -> str:
        return check_location(path)

    @field_validator("delimiter", "encoding", "quoting", "escape", "header")
    @classmethod
    def _fits_the_format(cls, value: object, info: ValidationInfo) -> object:
        path = redact_url(info.data.get("path", ""))
        format_ = info.data.get("format") or detect_format(path)
        of_csv_only = info.field_name != "encoding"
        is_default = value is None or value == "rfc4180"
        if not is_default and (format_ == "parquet" or (of_csv_only and format_ == "ndjson")):
            raise ValueError(f"{format_} files have no {info.field_name}; leave it empty")
        return value

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value == r"\t":
            return "\t"
        if value is not None and (len(value) != 1 or not value.isascii() or value in '"\r\n\0'):
            raise ValueError("the delimiter must be one ASCII character, no quote and no line end")
        return value

    @field_validator("escape")
    @classmethod
    def _escapes_quotes(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("quoting") == "none":
            raise ValueError("a file without quoting has no quotes to escape; leave it empty")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except LookupError:
            raise ValueError("no such encoding; examples are UTF-8, UTF-16, windows-1252") from None
        return value

    @field_validator("header")
    @classmethod
    def _names_are_unique(cls, value: list[str] | None) -> list[str] | None:
        if value and (not all(value) or "\0" in "".join(value) or len(set(value)) < len(value)):
            raise ValueError("each column needs a name, unique and without NUL")
        return value

    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the files, as `CrmSource.batches` does; columns keep their order."""
        files = self._locate()
        if odd := [file.name for file in files if "\udc80" <= max(file.name) <= "\udcff"]:
            raise SourceError(f"The file name {first_ten(odd[:1])} is not UTF-8: rename the file.")
        format_ = self._detect_format(files)
        if format_ == "csv":
            return read_csv(files, self._dialect, needed)
        if format_ == "ndjson":
            return read_ndjson(files, self.encoding, needed)
        return read_parquet(files, needed)

    def updated_at(self) -> datetime | None:
        """Return the time of the oldest file; None if its file system does not tell, as on the web.

        Raises SourceError, SourceUnavailable.
        """
        try:
            return min(file.modified() for file in self._locate())
        except NotImplementedError:
            return None

    def _locate(self) -> list[SourceFile]:
        given = self.storage_options.get_secret_value() if self.storage_options else {}
        options = read_secrets(given, f"{self.block_slug}, storage_options")
        return locate(self.path, options, self.logger)

    @property
    def _dialect(self) -> CsvDialect:
        return CsvDialect(
            self.delimiter,
            self.encoding,
            self.header,
            quoted=self.quoting != "none",
            escaped=self.escape is not None,
        )

    def _detect_format(self, files: list[SourceFile]) -> ListFormat:
        if self.format:
            return self.format
        formats: dict[ListFormat, str] = {}
        for file in files:
            if file.format is None:
                file.check_kind()
                raise SourceError(
                    f"{file.name}: its name does not say its format; state it in the CRM block."
                )
            formats[file.format] = file.name
        if len(formats) > 1:
            names = " and ".join(formats.values())
            raise SourceError(f"{names} are of different formats.")
        return formats.popitem()[0]
