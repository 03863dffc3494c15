from collections.abc import Sequence
from typing import Any

class ArrowInvalid(ValueError): ...
class DataType: ...

class Schema:
    names: list[str]

class Table:
    schema: Schema
    num_rows: int
    @staticmethod
    def from_batches(batches: Sequence[RecordBatch]) -> Table: ...

class RecordBatch:
    num_rows: int

def string() -> DataType: ...
def __getattr__(name: str) -> Any: ...

__version__: str
