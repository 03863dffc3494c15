"""What becomes of a Parquet list of which one bit is flipped.

    python -m tests.damage [FLIPS]

With checksums a list is exact or refused. Without, a value may be another one, but no row is
missing.
"""

import multiprocessing
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from blocks import FileCrm
from nudgescribe.errors import NudgeflowError

ROWS = 500
DELTA: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "column_encoding": {"id": "DELTA_BYTE_ARRAY", "n": "DELTA_BINARY_PACKED"},
}
CODECS: dict[str, dict[str, Any]] = {
    "snappy": {"compression": "snappy"},
    "zstd": {"compression": "zstd"},
    "none": {"compression": "none"},
    "delta": DELTA,
}


@dataclass(frozen=True)
class Damage:
    """How often a flip left the list exact, refused, with other values, or with other rows; a
    `raw` error is none of ours.
    """

    exact: int = 0
    refused: int = 0
    changed: int = 0
    rows: int = 0
    raw: int = 0


def damage(codec: str, checksums: bool, flips: int, seed: int = 7) -> Damage:
    """Flip bits, one at a time, in a process of its own: a library may take that with it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_flip, args=(codec, checksums, flips, seed, sender))
    process.start()
    sender.close()
    try:
        found: Counter[str] = receiver.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"The process ended with {process.exitcode}.") from None
    process.join()
    return Damage(**found)


def _flip(codec: str, checksums: bool, flips: int, seed: int, answer: Any) -> None:
    random, found = Random(seed), Counter[str]()
    with TemporaryDirectory() as folder:
        file, target = Path(folder, "list.parquet"), Path(folder, "target")
        table = pa.table({"id": [f"{n:06}" for n in range(ROWS)], "n": range(ROWS)})
        parquet.write_table(table, file, write_page_checksum=checksums, **CODECS[codec])
        whole = file.read_bytes()
        wanted = _extracted(file, target)
        for _ in range(flips):
            bit = random.randrange(len(whole) * 8)
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            found[_outcome(file, target, wanted)] += 1
    answer.send(found)


def _outcome(file: Path, target: Path, wanted: pa.Table) -> str:
    try:
        found = _extracted(file, target)
    except NudgeflowError:
        return "refused"
    except BaseException:
        return "raw"
    if found.schema.names != wanted.schema.names:
        return "refused"  # by whoever needs the columns
    if found.equals(wanted):
        return "exact"
    return "changed" if found.num_rows == wanted.num_rows else "rows"


def _extracted(file: Path, target: Path) -> pa.Table:
    FileCrm(path=str(file)).extract(target)
    return parquet.read_table(target)


if __name__ == "__main__":
    number = int(sys.argv[1]) if sys.argv[1:] else 2000
    for name in CODECS:
        for with_checksums in (True, False):
            print(name, "with" if with_checksums else "without", "checksums:", end=" ")
            print(damage(name, with_checksums, number))
