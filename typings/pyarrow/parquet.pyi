from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from pyarrow import RecordBatch, Schema, Table

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
    ) -> None: ...
    def write_table(self, table: Table, row_group_size: int | None = None) -> None: ...
    def close(self) -> None: ...

class RowGroupMetaData:
    total_byte_size: int

class FileMetaData:
    num_rows: int
    num_row_groups: int
    def row_group(self, i: int) -> RowGroupMetaData: ...

class ParquetFile:
    metadata: FileMetaData
    def __init__(self, source: BinaryIO, *, pre_buffer: bool = True) -> None: ...
    def iter_batches(self, batch_size: int, *, columns: Sequence[str]) -> Iterator[RecordBatch]: ...
