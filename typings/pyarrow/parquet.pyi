from pathlib import Path

from pyarrow import Schema, Table

class ParquetWriter:
    def __init__(
        self,
        where: Path,
        schema: Schema,
        *,
        compression: str,
        compression_level: int,
        use_dictionary: bool,
    ) -> None: ...
    def write_table(self, table: Table) -> None: ...
    def close(self) -> None: ...
