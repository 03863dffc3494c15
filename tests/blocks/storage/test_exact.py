"""The lake returns exactly the values of the pages, whatever the texts and the splits."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocks import DataLake
from blocks.storage.manifest import Format
from blocks.storage.part_writer import PART_BYTES
from nudgescribe import rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS
from tests.support.lakes import write_pages

Rows = list[tuple[str, str]]

HOSTILE = [
    *("", " ", ",", '"', '""', '","', "\r", "\n", "\r\n", '"\r\n"', "\n\n", "\r\r\n", "\0", "\\"),
    *("NA", "NULL", "null", "None", "nan", "N/A", "#N/A", "-", "True", "0"),
    *("00123", "1e5", "0x1F", "+1", "1.0", "2026-11-21", "-0", "9" * 30),
    *("\ufeff", "e\u0301", "é", "\u202eabc", "\u2028", "\x85", "\x1a", "\x1b[31m", "\uffff"),
    *("李", "🙂", "👩‍👩‍👧", "𝒳\U0010ffff", "a\u0300\u0301\u0302", "\u200b", "\t", " padded "),
    *("'", "=1+1", "@x", "<b>", "%00", "{{ x }}", "customer_id,message", "a;b", "ß" * 99),
]
FORMATS = ("parquet", "csv", "csv.zst")
CUTS = (1, 50, 200, PART_BYTES)
MANY = 200_000

texts = st.sampled_from(HOSTILE) | st.text(
    st.sampled_from('",\n\r\0 a0é🙂\u0301') | st.characters(codec="utf-8"), max_size=12
)


@dataclass(frozen=True)
class Style:
    """How a page is written."""

    line_end: str = "\r\n"
    last_end: bool = True
    quote_all: bool = False
    byte_order_mark: bool = False

    def page(self, rows: Rows) -> bytes:
        lines = [",".join(map(self._value, row)) for row in (MESSAGE_COLUMNS, *rows)]
        end = self.line_end if self.last_end else ""
        mark = "\ufeff" if self.byte_order_mark else ""
        return (mark + self.line_end.join(lines) + end).encode()

    def _value(self, text: str) -> str:
        if self.quote_all or any(each in text for each in '",\r\n'):
            return '"' + text.replace('"', '""') + '"'
        return text


styles = st.builds(
    Style, st.sampled_from(["\r\n", "\n"]), st.booleans(), st.booleans(), st.booleans()
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


def create_lake(root: Path, file_format: Format) -> DataLake:
    return DataLake(root=str(root), format=file_format)


def differing_reads(lake: DataLake, campaign_id: str, rows: Rows) -> list[str]:
    """The ways to read a run that do not return just these rows."""
    ids, messages = ([row[column] for row in rows] for column in (0, 1))
    columns = dict(zip(MESSAGE_COLUMNS, (ids, messages), strict=True))
    frame, table, pandas = (
        lake.read(campaign_id, kind=kind) for kind in ("polars", "arrow", "pandas")
    )
    scan = lake.scan(campaign_id)
    returned = {
        "polars": frame.to_dict(as_series=False) == columns,
        "arrow": table.to_pydict() == columns,
        "pandas": pandas.to_dict("list") == columns,
        "scan": scan.collect().rows() == rows,
        "scan of a column": scan.select("message").collect()["message"].to_list() == messages,
        "scan of some rows": scan.slice(1, 2).collect().rows() == rows[1:3],
        "scan for a value": scan.filter(pl.col("message") == "NULL").collect().rows()
        == [row for row in rows if row[1] == "NULL"],
    }
    return [how for how, same in returned.items() if not same]


@pytest.mark.parametrize("file_format", FORMATS)
@given(
    pages=st.lists(
        st.tuples(styles, st.lists(st.tuples(texts, texts), max_size=6)), min_size=1, max_size=5
    ),
    part_bytes=st.sampled_from(CUTS),
    block_bytes=st.none() | st.integers(1, 64),
)
@example([(Style(last_end=False), [("01", "")]), (Style("\n"), []), (Style(), [("", "")])], 1, 3)
@settings(max_examples=25)
def test_messages_of_any_text_are_read_back_exactly(
    root: Path,
    file_format: Format,
    pages: list[tuple[Style, Rows]],
    part_bytes: int,
    block_bytes: int | None,
) -> None:
    lake, campaign = create_lake(root, file_format), str(uuid4())
    written = [style.page(rows) for style, rows in pages]
    manifest = write_pages(lake, campaign, 1, written, part_bytes, block_bytes)
    assert [page.rows for page in manifest.pages] == [len(rows) for _, rows in pages]
    assert differing_reads(lake, campaign, [row for _, rows in pages for row in rows]) == []


@pytest.mark.parametrize("file_format", [*FORMATS, "delta"])
@pytest.mark.parametrize("page_rows", [1, 7, 10_000])
def test_hostile_texts_are_read_back_exactly(
    root: Path, file_format: Format, page_rows: int
) -> None:
    lake, campaign = create_lake(root / file_format, file_format), str(uuid4())
    rows = list(zip(HOSTILE, reversed(HOSTILE), strict=True))
    pages = [
        Style("\r\n" if at % 2 else "\n", at % 3 > 0, at % 4 > 1, at % 5 == 0).page(
            rows[at : at + page_rows]
        )
        for at in range(0, len(rows), page_rows)
    ]
    write_pages(lake, campaign, 1, pages, 400)
    assert differing_reads(lake, campaign, rows) == []
    if file_format == "delta":
        table = DeltaTable(lake.files.url("messages")).to_pyarrow_table(
            filters=[("campaign_id", "=", campaign)]
        )
        pairs = zip(*(table[name].to_pylist() for name in MESSAGE_COLUMNS), strict=True)
        assert sorted(pairs) == sorted(rows)


@pytest.mark.parametrize(
    ("file_format", "block_bytes"), [("parquet", None), ("csv", 1024 * 1024), ("csv.zst", None)]
)
def test_messages_of_megabytes_are_read_back_exactly(
    root: Path, file_format: Format, block_bytes: int | None
) -> None:
    lake, campaign = create_lake(root, file_format), str(uuid4())
    unit = '"a\r\nb",é🙂\n\0'
    long = unit * (5 * 1024 * 1024 // len(unit.encode()))
    rows = [("01", long), ("02", ""), (long[:99_999], "NA")]
    pages = [Style().page(rows[:1]), Style("\n", last_end=False).page(rows[1:])]
    write_pages(lake, campaign, 1, pages, 1024 * 1024, block_bytes)
    assert differing_reads(lake, campaign, rows) == []


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("quote_all", [True, False])
@pytest.mark.parametrize("last_end", [True, False])
def test_page_split_at_any_byte_is_read_exactly(
    line_end: str, quote_all: bool, last_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("01", "a\r\nb"), ("0,2", '"\r\n"'), ("", "\r\n\r\n"), ("é🙂", "\r"), ("04", "")]
    page = Style(line_end, last_end, quote_all, byte_order_mark=True).page(rows)
    for size in range(1, len(page) + 2):
        assert read_back(rfc4180.blocks(io.BytesIO(page), size)) == rows
        # Sources may return less than they are asked for: one cut, wherever it is.
        assert read_back(rfc4180.blocks(CutOnce(page, size), len(page))) == rows
    with TemporaryFile() as file:
        file.write(page)
        for size in range(1, len(page) + 2):
            monkeypatch.setattr(rfc4180, "PIECE_BYTES", size)
            assert read_back(rfc4180.mapped(file)) == rows


class CutOnce:
    """A source that ends a piece after so many bytes, and no other."""

    def __init__(self, content: bytes, at: int) -> None:
        self._pieces = [content[at:], content[:at]]

    def read(self, size: int) -> bytes:
        return self._pieces.pop() if self._pieces else b""


def read_back(blocks: Iterable[rfc4180.CsvBlock]) -> Rows:
    return [
        row
        for block in blocks
        for row in zip(*(column.to_pylist() for column in block.table.columns), strict=True)
    ]


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_many_hostile_rows_are_read_back_exactly(root: Path, file_format: Format) -> None:
    numbers = np.random.default_rng(20261121)
    picks = numbers.integers(0, len(HOSTILE), (4_000, 3)).tolist()
    pool = pl.Series([*HOSTILE, *("".join(HOSTILE[one] for one in three) for three in picks)])
    ids, messages = (pool.gather(numbers.integers(0, len(pool), MANY)) for _ in range(2))
    unique = pl.int_range(MANY, eager=True).cast(pl.String).str.zfill(9)
    rows = pl.DataFrame({"customer_id": unique + ids, "message": messages})
    lake, campaign = create_lake(root, file_format), str(uuid4())
    pages = (rfc4180.write(page) for page in rows.iter_slices(10_000))
    manifest = write_pages(lake, campaign, 1, pages, 1024 * 1024, None)
    assert len(manifest.pages) == 20
    assert len(manifest.parts) > 1
    assert lake.read(campaign, kind="polars").equals(rows)
    for file in root.rglob("part-*"):
        file.unlink()
