"""Modules that are imported with their first use."""

import subprocess
import sys

PROGRAM = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from nudgescribe.lazy import arrow_csv, arrow_json, io_plugins, ipc, pa, parquet, pc, pl, selectors

USES = (
    lambda: pl.Series, lambda: selectors.all, lambda: io_plugins.register_io_source,
    lambda: pa.array, lambda: pc.add, lambda: ipc.new_file, lambda: parquet.ParquetWriter,
    lambda: arrow_csv.read_csv, lambda: arrow_json.read_json,
)
begin = Barrier(len(USES))

def use(first):
    begin.wait()
    first()

with ThreadPoolExecutor(len(USES)) as threads:
    list(threads.map(use, USES))
"""


def test_threads_may_use_modules_of_one_library_for_the_first_time_at_once() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
