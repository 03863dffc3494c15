from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pyarrow import DataType, RecordBatch, Schema, Table

class ParquetWriter:
    def __init__(
        self,
        where: Any,
        schema: Schema,
        *,
        compression: str,
        compression_level: int | None,
        use_dictionary: bool,
        write_statistics: bool | list[str] = True,
        write_page_checksum: bool = False,
        store_schema: bool = True,
    ) -> None: ...
    def add_key_value_metadata(self, key_value_metadata: dict[bytes, bytes]) -> None: ...
    def write_table(self, table: Table, row_group_size: int | None = None) -> None: ...
    def close(self) -> None: ...

class RowGroupMetaData:
    total_byte_size: int

class FileMetaData:
    num_rows: int
    num_row_groups: int
    metadata: dict[bytes, bytes] | None
    def row_group(self, i: int) -> RowGroupMetaData: ...

class ColumnSchema:
    path: str
    physical_type: str

class ParquetSchema:
    def __len__(self) -> int: ...
    def column(self, i: int) -> ColumnSchema: ...

class ParquetReader:
    def set_batch_size(self, batch_size: int) -> None: ...

class ParquetFile:
    reader: ParquetReader
    schema: ParquetSchema
    metadata: FileMetaData
    schema_arrow: Schema
    def __init__(
        self,
        source: BinaryIO | Path,
        *,
        pre_buffer: bool = True,
        page_checksum_verification: bool = False,
        coerce_int96_timestamp_unit: str | None = None,
        binary_type: DataType | None = None,
    ) -> None: ...
    def __enter__(self) -> ParquetFile: ...
    def __exit__(self, *args: object) -> None: ...
    def iter_batches(self, batch_size: int, *, columns: Sequence[str]) -> Iterator[RecordBatch]: ...

def read_metadata(where: BinaryIO | Path) -> FileMetaData: ...
