"""Customer lists from files."""

from pathlib import Path

from prefect.types import SecretDict
from pydantic import Field, ValidationInfo, field_validator

from blocks.crm.files.csv import CsvForm, copy_csv
from blocks.crm.files.locate import Format, Found, find, format_of, shown
from blocks.crm.files.ndjson import copy_ndjson
from blocks.crm.files.parquet import copy_parquet
from blocks.crm.source import CrmSource, SourceError
from blocks.saved import documentation_url


class FileCrm(CrmSource):
    """
    The customer list is a CSV, Parquet or NDJSON file, or several of them.

    Example:
        ```python
        from blocks import FileCrm

        crm = FileCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "File CRM"
    _documentation_url = documentation_url("customer-lists")

    path: str = Field(
        description="Path or fsspec URL of the file, such as s3://crm/list.csv.gz; a pattern such "
        "as s3://crm/list-*.csv for several files with the same columns. Keys and passwords belong "
        "in storage_options: Prefect keeps the path in clear."
    )
    format: Format | None = Field(
        default=None,
        description="Of the file; if not stated, by its name: .csv, .tsv, .txt, .parquet, .ndjson "
        "or .jsonl, then .gz, .zst or .zstd if it is compressed.",
    )
    delimiter: str | None = Field(
        default=None,
        description=r"What parts the values of a CSV, \t for a tab; if not stated, the comma, "
        "semicolon, tab or vertical bar its first row has.",
    )
    encoding: str | None = Field(
        default=None,
        description="Of CSV or NDJSON, such as windows-1252; if not stated, UTF-8 or what a byte "
        "order mark says.",
    )
    header: list[str] | None = Field(
        default=None,
        min_length=1,
        description="The columns' names, for a CSV without a header row.",
    )
    storage_options: SecretDict | None = Field(
        default=None, description="Options of the file system, such as its keys."
    )

    @field_validator("delimiter", "encoding", "header")
    @classmethod
    def _fits_the_format(cls, value: object, info: ValidationInfo) -> object:
        format_ = info.data.get("format") or format_of(shown(info.data.get("path", "")))
        of_csv_only = info.field_name != "encoding"
        if value is not None and (format_ == "parquet" or (of_csv_only and format_ == "ndjson")):
            raise ValueError(f"{format_} files have no {info.field_name} to state")
        return value

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value == r"\t":
            return "\t"
        if value is not None and (len(value) != 1 or not value.isascii() or value in '"\r\n\0'):
            raise ValueError("the delimiter is one ASCII character, no quote and no line end")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except LookupError:
            raise ValueError("no such encoding; UTF-8, UTF-16 and windows-1252 are some") from None
        return value

    @field_validator("header")
    @classmethod
    def _names_are_single(cls, value: list[str] | None) -> list[str] | None:
        if value and (not all(value) or "\0" in "".join(value) or len(set(value)) < len(value)):
            raise ValueError("each column needs a name without NUL, and no two the same")
        return value

    def extract(self, target: Path) -> int:
        options = self.storage_options.get_secret_value() if self.storage_options else {}
        files = find(self.path, options)
        format_ = self._format(files)
        if format_ == "csv":
            form = CsvForm(self.delimiter, self.encoding, self.header)
            return copy_csv(files, target, form, self.logger)
        if format_ == "ndjson":
            return copy_ndjson(files, target, self.encoding, self.logger)
        return copy_parquet(files, target, self.logger)

    def _format(self, files: list[Found]) -> Format:
        if self.format:
            return self.format
        formats: dict[Format, str] = {}
        for file in files:
            if file.format is None:
                raise SourceError(f"{file.name}: its name does not say its format; state it.")
            formats[file.format] = file.name
        if len(formats) > 1:
            names = " and ".join(formats.values())
            raise SourceError(f"{names} are of different formats.")
        return formats.popitem()[0]
