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
    def write_table(self, table: Table) -> None: ...
    def close(self) -> None: ...

class ParquetFile:
    def __init__(self, source: BinaryIO) -> None: ...
    def iter_batches(self, batch_size: int, *, columns: Sequence[str]) -> Iterator[RecordBatch]: ...
