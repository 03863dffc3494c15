"""How the generated files of this folder were made; those of `public/` are in ../LICENCES.md."""

import datetime as dt
import decimal
import io
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(sys.argv[1])
PLAIN = {"compression": "zstd", "use_dictionary": False}


def write(name, column, damage=None, prefix="", **options):
    ids = [f"{prefix}{number}" for number in range(len(column))]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"customer_id": ids, "v": column}), buffer, **{**PLAIN, **options})
    content = bytearray(buffer.getvalue())
    if damage:
        damage(content)
    path = HERE / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def page(content):
    for place in range(60, 90):
        content[place] ^= 0xFF


def one_bit(content):
    content[141852] ^= 1 << 1


for zone in ("+10:00", "+05:30", "US/Pacific-New"):
    name = zone.replace("+", "plus_").replace(":", "").replace("/", "_").replace("-", "_").lower()
    write(f"zone_{name}", pa.array([dt.datetime(2026, 1, 2)], pa.timestamp("us", zone)))
when = pd.to_datetime(["2026-01-01T10:00:00+05:30"])
pd.DataFrame({"id": ["1"], "when": when}).to_parquet(HERE / "zone_pandas.parquet")
latin1 = pa.array([b"J\xfcrgen", b"ok"], pa.binary()).buffers()
write("latin1_text", pa.Array.from_buffers(pa.string(), 2, latin1))
write("damaged_page", pa.array(["x" * 7] * 1000), page)
write("duration", pa.array([dt.timedelta(days=1)], pa.duration("us")))
write("decimal256", pa.array([decimal.Decimal("1.5")], pa.decimal256(60, 2)))
write("json_extension", pa.array(["{}"], pa.json_()))
write("date_far_away", pa.array([100_000_000], pa.int32()).cast(pa.date32()))
write("timestamp_infinity", pa.array([2**63 - 1], pa.int64()).cast(pa.timestamp("us")))
times = [dt.time(9, 31, 38, 827000), dt.time(0, 0, 0, 1), dt.time(9, 5)]
write("time", pa.array(times, pa.time64("us")))
write("time_out_of_range", pa.array([-13899000, 90061000, 0], pa.int32()).view(pa.time32("ms")))
write("nested_not_needed", pa.array([["a"]]))
days = pa.array([dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1)], pa.timestamp("us"))
for part in (0, 1):
    write(f"int96/part-{part}", days, prefix=part, use_deprecated_int96_timestamps=True)
plans = ["pro" if number % 97 == 0 else "basic" for number in range(60_000)]
ids = [f"{number:06d}" for number in range(60_000)]
buffer = io.BytesIO()
delta = {"customer_id": "DELTA_BYTE_ARRAY", "plan": "DELTA_BYTE_ARRAY"}
pq.write_table(
    pa.table({"customer_id": ids, "plan": plans}),
    buffer,
    row_group_size=10_000,
    compression="none",
    use_dictionary=False,
    column_encoding=delta,
)
content = bytearray(buffer.getvalue())
one_bit(content)  # in the last of six row groups
(HERE / "one_bit_damaged.parquet").write_bytes(content)
