"""How lists in files of anybody are read, against a reader that is none of ours.

    python -m tests.corpora FOLDER

Each file is *exact*; *refused*, in a line that names it; *unclear*, refused otherwise; *changed*,
accepted with other values; *unknown*, accepted where the other reader does not read it; or *raw*:
an error that is none of ours, or the end of the process.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import cache
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
from pyarrow import parquet

from blocks import FileCrm
from blocks.crm.files.locate import detect_format
from nudgescribe.errors import NudgeflowError

LONGEST = 1000
Rows = list[tuple[Any, ...]]


def outcome(file: Path) -> str:
    """What becomes of a file, found out in another process, which it may end."""
    try:
        return _other_process().submit(_outcome, file).result()
    except BrokenProcessPool:
        _other_process.cache_clear()
        return "raw: the process ended"


@cache
def _other_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def _outcome(file: Path) -> str:
    with TemporaryDirectory() as folder:
        target = Path(folder, "list")
        try:
            FileCrm(path=str(file.absolute()), format=detect_format(file.name)).extract(target)
        except NudgeflowError as error:
            return _judge(str(error), file.name)
        except BaseException as error:
            return f"raw: {type(error).__name__}"
        ours = [tuple(row.values()) for row in parquet.read_table(target).to_pylist()]
    try:
        theirs = READERS[detect_format(file.name) or "csv"](file)
    except Exception as error:
        return f"unknown: {type(error).__name__}"
    pairs = zip_longest(ours, theirs)
    differing = next((row for row, pair in enumerate(pairs, 1) if not _same(*pair)), None)
    return "exact" if differing is None else f"changed: row {differing}"


def _judge(said: str, name: str) -> str:
    if name not in said or len(said) > LONGEST or "\n" in said or "Error" in said.replace(name, ""):
        return f"unclear: {said[:200]}"
    return f"refused: {said[:200]}"


def _same(ours: tuple[str | None, ...] | None, theirs: tuple[Any, ...] | None) -> bool:
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    return all(map(_says, ours, theirs))


def _says(text: str | None, value: Any) -> bool:
    """Whether a text is the text of a value."""
    if text is None or value is None:
        return text is value
    try:
        found = _VALUES.get(type(value), str)(text)
        return found == value or (found != found and value != value) or text == str(value)
    except (ValueError, InvalidOperation):
        return False


_VALUES: dict[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text],
    int: int,
    float: float,
    np.float32: np.float32,
    Decimal: Decimal,
    date: date.fromisoformat,
    datetime: lambda text: datetime.fromisoformat(text[:26] if "+" not in text else text),
    time: time.fromisoformat,
}


def _read_parquet(file: Path) -> Rows:
    with duckdb.connect() as connection:
        found = connection.from_parquet(str(file))
        exact = [
            np.float32 if str(each) in ("FLOAT", "HALF") else _as_it_is for each in found.types
        ]
        return [tuple(map(_convert, exact, row)) for row in found.fetchall()]


def _as_it_is(value: Any) -> Any:
    return value


def _convert(kind: Callable[[Any], Any], value: Any) -> Any:
    return value if value is None else kind(value)


def _read_csv(file: Path) -> Rows:
    with file.open(encoding="utf-8-sig", newline="") as text:
        first = text.readline()
        if first.startswith("sep="):
            delimiter = first[4]
        else:
            delimiter = csv.Sniffer().sniff(first, ",;\t|").delimiter
            text.seek(0)
        _, *rows = csv.reader(text, delimiter=delimiter, strict=True)
        return [tuple(row) for row in rows if row]


def _read_ndjson(file: Path) -> Rows:
    numbers: dict[str, Any] = {"parse_float": str, "parse_int": str}
    rows = [
        json.loads(line, **numbers) for line in file.read_text("utf-8-sig").splitlines() if line
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return [tuple(row.get(name) for name in names) for row in rows]


READERS = {"parquet": _read_parquet, "csv": _read_csv, "ndjson": _read_ndjson}


def outcomes(folder: Path) -> Iterator[tuple[Path, str]]:
    """The outcome of each file whose name says a format."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and detect_format(file.name):
            yield file, outcome(file)


if __name__ == "__main__":
    counts: Counter[str] = Counter()
    for path, what in outcomes(Path(sys.argv[1])):
        counts[what.partition(":")[0]] += 1
        print(f"{path}: {what}")
    print(dict(counts))
