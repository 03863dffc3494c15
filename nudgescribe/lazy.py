"""Libraries for tables, imported when they are first used: they take longer than all the rest, and
not every process works on a table.

A module writes `from nudgescribe.lazy import pa, pl` in place of `import pyarrow as pa` and `import
polars as pl`. It begins with `from __future__ import annotations` if it annotates with them, and
uses them only within functions.
"""

from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.ipc as ipc
    import pyarrow.json as arrow_json
    import sqlalchemy
    import sqlalchemy.exc as sqlalchemy_errors
    import tenacity
    import urllib3
    from cryptography import fernet
    from polars import selectors
    from polars.io import plugins as io_plugins
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet, types
else:
    _importing = RLock()

    class _Lazy(ModuleType):
        """Stands for a module, which is imported for the first of its attributes."""

        def __getattr__(self, name: str) -> Any:
            # Threads that import modules of one library at once would get each other's
            # half-imported ones: that is how Python ends their deadlock.
            with _importing:
                module = import_module(self.__name__)
            # From now on attributes are found without this detour.
            self.__dict__.update(module.__dict__)
            return getattr(module, name)

    np = _Lazy("numpy")
    npt = _Lazy("numpy.typing")
    pd = _Lazy("pandas")
    pl = _Lazy("polars")
    selectors = _Lazy("polars.selectors")
    io_plugins = _Lazy("polars.io.plugins")
    pa = _Lazy("pyarrow")
    pc = _Lazy("pyarrow.compute")
    arrow_csv = _Lazy("pyarrow.csv")
    arrow_json = _Lazy("pyarrow.json")
    ipc = _Lazy("pyarrow.ipc")
    parquet = _Lazy("pyarrow.parquet")
    types = _Lazy("pyarrow.types")
    sqlalchemy = _Lazy("sqlalchemy")
    sqlalchemy_errors = _Lazy("sqlalchemy.exc")
    fernet = _Lazy("cryptography.fernet")
    tenacity = _Lazy("tenacity")
    urllib3 = _Lazy("urllib3")

__all__ = [
    "arrow_csv",
    "arrow_json",
    "fernet",
    "io_plugins",
    "ipc",
    "np",
    "npt",
    "pa",
    "parquet",
    "pc",
    "pd",
    "pl",
    "selectors",
    "sqlalchemy",
    "sqlalchemy_errors",
    "tenacity",
    "types",
    "urllib3",
]
