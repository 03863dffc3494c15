"""Judging customers column by column against row by row, on the same list in one run.

python -m benchmarks.validate [ROWS]
"""

import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from time import perf_counter, process_time

import polars as pl

from nudgescribe import fields
from nudgescribe.contract import WorkspaceField
from sandbox import people

RULES = [
    WorkspaceField(
        field_id="",
        display_name="",
        **field.model_dump(exclude={"display_name"}),
    )
    for field in people.fields("")
]


def columns(frame: pl.DataFrame) -> int:
    return fields.judge(frame, RULES).rejected_rows


def rows(frame: pl.DataFrame) -> int:
    seen: set[str] = set()
    return sum(not _row_is_good(row, seen) for row in frame.iter_rows(named=True))


def _row_is_good(row: dict[str, str], seen: set[str]) -> bool:
    key = row["customer_id"]
    good = key not in seen
    seen.add(key)
    return good and all(_value_is_good(rule, row[rule.field_name]) for rule in RULES)


def _value_is_good(rule: WorkspaceField, value: str) -> bool:
    if not value:
        return not rule.required
    try:
        match rule.field_type:
            case "Date":
                return bool(datetime.strptime(value, "%d/%m/%Y"))
            case "number":
                return Decimal(value).is_finite()
            case "currency":
                exponent = Decimal(value).as_tuple().exponent
                return isinstance(exponent, int) and exponent >= -2
            case "char":
                return len(value) == 1
            case "string":
                return "\0" not in value
    except (ValueError, InvalidOperation):
        return False


def measure(name: str, judge: Callable[[pl.DataFrame], int], frame: pl.DataFrame) -> None:
    wall, cpu = perf_counter(), process_time()
    rejected = judge(frame)
    wall, cpu = perf_counter() - wall, process_time() - cpu
    rate = frame.height / wall
    print(f"{name:8} {rate:12,.0f} rows/s {cpu:8.2f} CPU s   {rejected:,} rejected")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    listed = pl.DataFrame(list(people.customers(count, people.PLANS_NOW, invalid_every=100)))
    for _ in range(3):
        measure("columns", columns, listed)
        measure("rows", rows, listed)
