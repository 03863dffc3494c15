import bz2
import codecs
import csv
import errno
import gzip
import io
import json
import logging
import lzma
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock
from zipfile import ZipFile

import fsspec
import polars as pl
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.types import SecretDict
from pyarrow.parquet import write_table
from pydantic import ValidationError

from blocks import FileCrm
from blocks.crm.errors import ColumnMissing, SourceError, SourceUnavailable
from blocks.crm.files import csv as csv_files
from blocks.crm.files import encoding as text_encoding
from blocks.crm.files import ndjson
from blocks.crm.list_file import ListWriter
from nudgescribe import rfc4180
from tests.blocks.crm.extracting import read_back
from tests.support import stores
from tests.support.http_server import FakeService, Reply, Request, serving

Files = dict[str, bytes]


def extract(folder: Path, files: Files, path: str = "", **fields: Any) -> pl.DataFrame:
    """What the block makes of these files: of the only one, or of those a pattern matches."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    crm = FileCrm(path=str(folder / (path or min(files))), **fields)
    return read_back(crm, folder / "target.out")


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """What the block logs, whether Prefect has set up its logging or not."""
    logger = logging.getLogger("prefect.FileCrm")
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, logger.name)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[list[str]]]:
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"]))
    characters = st.sampled_from('",;|\t\n\r\ufeffé0 \0') | st.characters()
    encodable = characters.filter(lambda one: one.encode(encoding, "ignore").decode(encoding))
    row = st.lists(st.text(encodable, max_size=6), min_size=2, max_size=2)
    # Without quotes, a byte order mark before a row is none of its values.
    rows = st.lists(row.filter(lambda values: values[0][:1] != "\ufeff"), max_size=8)
    return encoding, draw(rows)


@settings(max_examples=50)
@given(
    tables(),
    st.sampled_from(",;\t|"),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", ".gz", ".zst"]),
)
def test_csv_of_any_values_is_read_back_exactly(
    table: tuple[str, list[list[str]]], delimiter: str, stated: bool, end: str, suffix: str
) -> None:
    encoding, rows = table
    table_text = io.StringIO(newline="")
    # Left to itself this writer does not quote a CR where rows end with LF.
    quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL
    csv.writer(table_text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(
        [["first name", "é"], *rows]
    )
    content = table_text.getvalue().encode(encoding)
    if suffix:
        content = compressed(content, suffix)
    fields: dict[str, Any] = {"delimiter": delimiter} if stated else {}
    if encoding in ("utf-16-be", "cp1252"):
        fields["encoding"] = encoding
    with TemporaryDirectory() as folder:
        frame = extract(Path(folder), {f"list.csv{suffix}": content}, **fields)
    assert frame.columns == ["first name", "é"]
    assert list(map(list, frame.rows())) == rows


def compressed(content: bytes, suffix: str) -> bytes:
    return pa.compress(content, {".gz": "gzip", ".zst": "zstd"}[suffix], asbytes=True)


def test_long_csv_is_read_in_parts(tmp_path: Path) -> None:
    frame = extract(tmp_path, {"list.csv": b"id,name\n" + b'1,"some name\r\n"\n' * 700_000})
    assert frame.height == 700_000
    assert frame["name"].unique().to_list() == ["some name\r\n"]


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_value_of_ten_mebibytes_is_read_exactly(tmp_path: Path, name: str) -> None:
    value = "é,\n" * (10 * 1024 * 1024 // 4) + "end"
    rows = {"list.csv": f'a;b\n1;"{value}"\n', "list.jsonl": json.dumps({"a": "1", "b": value})}
    assert extract(tmp_path, {name: rows[name].encode()}).rows() == [("1", value)]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"id,name\n1,2;\n", "commas"),
        (b'"id, or key";name\n1;2\n', "semicolons"),
        (b"id\tname\r\n1\t2,\r\n", "tabs"),
        (b"id|na\xc3\xafve|x\r1|2|3\r", "vertical bars"),
        (b'"id;\n""x"",y"\n1\n', "commas"),
        (b"id", "commas"),
    ],
)
def test_delimiter_is_detected_and_logged(
    tmp_path: Path, log: pytest.LogCaptureFixture, content: bytes, found: str
) -> None:
    frame = extract(tmp_path, {"list.csv": content})
    rows = "rows 1 to 1 of the list" if frame.height else "no rows"
    assert log.messages == [f"{tmp_path}/list.csv: CSV with {found}, utf-8, {rows}"]


def test_stated_dialect_overrides_detection(tmp_path: Path) -> None:
    content = "Zoë;a,b\nX\x81;c".encode("latin-1")
    fields = {"delimiter": ";", "encoding": "latin-1", "header": ["name", "x"], "format": "csv"}
    frame = extract(tmp_path, {"list.dat": content}, **fields)
    assert frame.to_dict(as_series=False) == {"name": ["Zoë", "X\x81"], "x": ["a,b", "c"]}
    assert extract(tmp_path, {"tabs.csv": b"a,b\t1\n"}, delimiter=r"\t").columns == ["a,b", "1"]


def test_delimiter_is_detected_by_stated_header(tmp_path: Path) -> None:
    content = codecs.BOM_UTF8 + b"1,5;Ann;x|y\n"
    frame = extract(tmp_path, {"list.csv": content}, header=["sum", "name", "note"])
    assert frame.rows() == [("1,5", "Ann", "x|y")]
    frame = extract(tmp_path, {"list.csv": b""}, header=["a", "b"])
    assert frame.schema == {"a": pl.String, "b": pl.String}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("stated", [False, True])
def test_encoding_is_detected_by_byte_order_mark(
    tmp_path: Path, log: pytest.LogCaptureFixture, encoding: str, stated: bool
) -> None:
    content = '\ufeffid;name\n1;"Zoë \U0001f642"\n'.encode(encoding)
    fields = {"encoding": encoding.removesuffix("-le")} if stated else {}
    frame = extract(tmp_path, {"list.csv": content}, **fields)
    assert frame.rows(named=True) == [{"id": "1", "name": "Zoë \U0001f642"}]
    assert f"semicolons, {encoding}, rows" in log.text


def test_character_split_between_reads_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoding, "HEAD_BYTES", 9)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 1)
    content = "id\n\U0001f642é\n".encode("utf-16")
    assert extract(tmp_path, {"list.csv": content}).rows() == [("\U0001f642é",)]


@pytest.mark.parametrize(
    ("content", "fields", "problem"),
    [
        (b"", {}, "is empty"),
        (b"sep=;", {}, "is empty"),
        (b'a,"b" \n1,2\n', {}, "list.csv, header row: .*behind a closing quote"),
        (b"id;a,b\n1;2\n", {}, "commas and semicolons in its first row: state the delimiter"),
        (b"Zoe,id,Zoe\n", {}, "repeats a name in the columns 1, 3"),
        ("id,n\n1,2\n3,Möller\n".encode("cp1252"), {}, r"list.csv, row 2: .*such as windows-1252"),
        ("Möller\n".encode("cp1252"), {}, r"list.csv: .* UTF-8. State its encoding"),
        ("id,Möller\n".encode("utf-16-le"), {}, "NUL in its first row"),
        ("id,Möller\n".encode("utf-16-le"), {"encoding": "utf-16"}, "utf-16-le or utf-16-be"),
        ("\ufeffid\n".encode(), {"encoding": "cp1252"}, "stated to be cp1252, .* say utf-8"),
        ("id\nMöller".encode()[:-1] + b"\x81", {"encoding": "cp1252"}, "cp1252 .*from byte 10 on"),
        ("id\nMö".encode("utf-16-le") + b"x", {"encoding": "utf-16-le"}, "from byte 11 on"),
        ("id\nMöller".encode() + b"\xff" * 9, {"encoding": "utf-7"}, "from byte 5 on"),
        (b"id\n+2AA-", {"encoding": "utf-7"}, "from byte 1 on"),
        (b"a,b\n1,2\n3,4,5\n6,7\n", {}, "list.csv, row 2: .*too many or too few"),
        (b"a,b\n1,2\n3\n", {}, "row 2"),
        (b"1,2\n3\n", {"header": ["a", "b"]}, "row 2"),
        (b"a,b\r1,2\r3\r", {}, "list.csv: .*too many or too few"),
        (b'a,b\n1,2\n3,"x\n', {}, "cut off"),
    ],
)
def test_csv_that_cannot_be_read_exactly_is_refused(
    tmp_path: Path, content: bytes, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        extract(tmp_path, {"list.csv": content}, **fields)
    assert "Möller" not in str(caught.value)


@settings(max_examples=40)
@given(st.integers(0, 60), st.sampled_from([b"7,8,9\n", b"7\n", b'"7\r\n",\xff\n']))
def test_csv_error_names_the_row(before: int, wrong: bytes) -> None:
    content = b"a,b\n" + b'1,"\n2"\r\n' * before + wrong + b"3,4\n" * 9 + wrong
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoding, "HEAD_BYTES", 50)
        patch.setattr(csv_files, "BLOCK_BYTES", 100)
        with pytest.raises(SourceError, match=f"list.csv, row {before + 1}: "):
            extract(Path(folder), {"list.csv": content})


@pytest.mark.parametrize("block_bytes", [14, 1000])
def test_csv_value_with_stray_quote_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(text_encoding, "HEAD_BYTES", block_bytes)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", block_bytes)
    files = {"list.csv": b'a,b\n1,5"\n2,"x\n3,y"\n4,6"\n'}
    with pytest.raises(SourceError, match="row 1: .*a quote in an unquoted value. .*quoting: none"):
        extract(tmp_path, files)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_csv_may_end_with_quoted_line_end(tmp_path: Path, end: str) -> None:
    content = f'a,b{end or chr(10)}1,"x\n"{end}'.encode()
    assert extract(tmp_path, {"list.csv": content}).rows() == [("1", "x\n")]


def test_compressed_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    ends = gzip.compress(b"id\n1\n") + gzip.compress(b"2\n")
    assert extract(tmp_path, {"list.csv.gz": ends})["id"].to_list() == ["1", "2"]
    frames = compressed(b'{"id": 1}\n', ".zst") * 2
    assert extract(tmp_path, {"list.JSONL.ZST": frames})["id"].to_list() == ["1", "1"]
    for name, content in {
        "cut.csv.gz": ends[:-3],
        "cut.jsonl.zstd": frames[:-3],
    }.items():
        with pytest.raises(SourceError, match=f"{name} could not be read: it is damaged"):
            extract(tmp_path, {name: content})


@pytest.mark.parametrize("name", ["list.csv.gz", "list.jsonl.gz"])
def test_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(rfc4180, "LONGEST_ROW", 1_000_000)
    monkeypatch.setattr(ndjson, "LONGEST_LINE", 1_000_000)
    with pytest.raises(SourceError, match="more than 1,000,000 bytes"):
        extract(tmp_path, {name: gzip.compress(b"x" * 9_000_000)})


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.csv.zst"])
def test_first_bytes_decide_compression_whatever_the_name_says(tmp_path: Path, name: str) -> None:
    content = b"id\n1\n"
    packed = [content, gzip.compress(content), compressed(content, ".zst")]
    for each in (*packed, gzip.compress(packed[1]), b"\x50\x2a\x4d\x18\0\0\0\0" + packed[2]):
        assert extract(tmp_path, {name: each}, name).rows() == [("1",)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (bz2.compress(b"id\n1\n"), "is compressed with bzip2"),
        (lzma.compress(b"id\n1\n"), "is compressed with xz"),
        (b"PK\x03\x04x", "is a zip or an Excel workbook: export it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Excel workbook"),
        (b"%PDF-1.7", "is a PDF"),
        (b"PAR1x", "is a Parquet file: state the format parquet"),
        (b"\n <!DOCTYPE HTML><html>", "is a web page"),
    ],
)
@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.csv.gz", "list.xlsx", "list"])
def test_file_of_another_kind_is_refused_in_words(
    tmp_path: Path, content: bytes, problem: str, name: str
) -> None:
    with pytest.raises(SourceError, match=f"{name} {problem}"):
        extract(tmp_path, {name: content}, name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (compressed(b"PK\x03\x04x", ".gz"), "is a zip"),
        (compressed(b"<html lang=en>", ".zst"), "is a web page"),
        (
            b'{"id": 1, "n": "ada"}\n',
            "is JSON: if it has one object a line, state the format ndjson",
        ),
        (b'\n[{"id": 1}]', "is JSON"),
        (codecs.BOM_UTF8 + b'{\r\n  "id": 1\r\n}', "is JSON"),
        ('\ufeff["id", "n"]'.encode("utf-16-le"), "is JSON"),
        (b'<?xml version="1.0"?>\n<list/>', "is XML: export it as CSV"),
        (b"<list>\n  <customer><id>1</id></customer>\n</list>\n", "is XML"),
    ],
)
def test_text_of_another_format_is_refused_in_words(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    with pytest.raises(SourceError, match=f"list.csv {problem}") as caught:
        extract(tmp_path, {"list.csv": content})
    assert "ada" not in str(caught.value)


def test_json_and_xml_are_values_where_nothing_is_quoted(tmp_path: Path) -> None:
    content = b'{"x": 1}\t<a>\n'
    fields = {"quoting": "none", "header": ["x", "y"]}
    assert extract(tmp_path, {"list.tsv": content}, **fields).rows() == [('{"x": 1}', "<a>")]


@pytest.mark.parametrize(
    ("content", "fields", "rows"),
    [
        (b'id\tn\n1\t"Blue" live\n2\t5"\n3\t"', {"quoting": "none"}, ['"Blue" live', '5"', '"']),
        (b'id,n\n1,"say \\"hi\\""\n', {"escape": "backslash"}, ['say "hi"']),
        (b'id,n\n1,"C:\\\\"\n2,C:\\dir\n', {"escape": "backslash"}, ["C:\\", "C:\\dir"]),
        (b'id,n\n1,"C:\\dir"\n2,\\N\n3,"\\\n"\n', {"escape": "backslash"}, ["C:\\dir", None, "\n"]),
        (b'id,n\n1,"a ""b"" \\", c"\n2,x\\\n', {"escape": "backslash"}, ['a "b" ", c', "x\\"]),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 1000])
def test_csv_of_other_quoting_is_read_exactly_where_it_is_stated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    fields: dict[str, Any],
    rows: list[str | None],
    block_bytes: int,
) -> None:
    monkeypatch.setattr(text_encoding, "HEAD_BYTES", max(block_bytes, 5))
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", block_bytes)
    delimiter = "\t" if b"\t" in content else ","
    frame = extract(tmp_path, {"list.csv": content}, delimiter=delimiter, **fields)
    assert frame["n"].to_list() == rows


values_of_spark = st.text(st.sampled_from('\\",\nN0 x'), max_size=6)


@settings(max_examples=60)
@given(st.lists(st.tuples(values_of_spark, values_of_spark), max_size=6), st.integers(1, 20))
def test_csv_escaped_by_backslashes_is_read_back_exactly(
    rows: list[tuple[str, str]], block_bytes: int
) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "a,b\n" + "".join(f"{quoted(one)},{quoted(other)}\n" for one, other in rows)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoding, "HEAD_BYTES", max(4, block_bytes))
        patch.setattr(csv_files, "BLOCK_BYTES", block_bytes)
        frame = extract(
            Path(folder), {"list.csv": text.encode()}, delimiter=",", escape="backslash"
        )
    assert frame.rows() == rows


def test_stray_quote_behind_a_backslash_is_told_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="row 1: .*behind a closing quote.*escape: backslash"):
        extract(tmp_path, {"list.csv": b'id,n\n1,"say \\"hi\\""\n'})


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (b"sep=;\r\nid;n\r\n1;a\r\n", {}),
        (b'"sep=;"\nid;n\n1;a\n', {}),
        (b"sep=;\rid;n\r1;a\r", {}),
        (codecs.BOM_UTF8 + b"SEP=;\nid;n\n1;a\n", {"delimiter": ";"}),
        ("\ufeffsep=;\r\nid;n\r\n1;a\r\n".encode("utf-16-le"), {}),
        (b"sep=\t\r\nid\tn\r\n1\ta\r\n", {}),
        (b"sep=^\r\n\r\n1^a\r\n", {"header": ["id", "n"]}),
        (b"\n\r\nid,n\n\n1,a\n\n\n", {}),
        (b" id ,  n\n1,a\n", {}),
        (b"id,n\nid,n\n1,a\nid,n\n", {}),
        (b"id , n\n1,a\nid , n\n", {}),
        (b"id,n\n1,a\n", {"header": ["id", "n"]}),
        (b"id,n\n1,a\n\xef\xbb\xbfid,n\n", {}),
        (codecs.BOM_UTF8 + b"id,n\r\n\xef\xbb\xbfid,n\r\n1,a", {}),
        ("\ufeffid,n\n1,a\n\ufeffid,n\n".encode("utf-16-le"), {}),
        (b"id,n\n\xef\xbb\xbf1,a\n", {}),
        (b"\xef\xbb\xbf1,a\n\xef\xbb\xbfid,n\n", {"header": ["id", "n"]}),
        (b"id,n\r\xef\xbb\xbf1,a\r", {"quoting": "none"}),
        (b"id,n\n1,a\nID,N\n", {}),
        (b"id , n\nId , N\n1,a\n", {}),
    ],
)
@pytest.mark.parametrize("block_bytes", [7, 1000])
def test_lines_that_are_no_customers_are_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    fields: dict[str, Any],
    block_bytes: int,
) -> None:
    monkeypatch.setattr(text_encoding, "HEAD_BYTES", max(block_bytes, 16))
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", block_bytes)
    frame = extract(tmp_path, {"list.csv": content}, **fields)
    assert frame.rows(named=True) == [{"id": "1", "n": "a"}]


def test_byte_order_mark_in_quotes_and_value_of_one_column_are_kept(tmp_path: Path) -> None:
    content = 'id,n\n"\ufeff1",a\n2,"x\n\ufeffy"\n\ufeff3,b\n'.encode()
    frame = extract(tmp_path, {"list.csv": content})
    assert frame.rows() == [("\ufeff1", "a"), ("2", "x\n\ufeffy"), ("3", "b")]
    assert extract(tmp_path, {"list.csv": b"id\n1\nID\nid\n"})["id"].to_list() == ["1", "ID"]


def test_lines_left_out_are_logged(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    content = b'sep=,\nid , n\n\n1,"\n\n"\n\xef\xbb\xbfid,n\n\r\n2,b'
    extract(tmp_path, {"list.csv": content})
    assert [message.removeprefix(f"{tmp_path}/list.csv: ") for message in log.messages] == [
        "its first line says the delimiter",
        "byte order marks before rows left out",
        "blanks around column names left out",
        "row 2 repeats the header, left out",
        "2 blank lines left out",
        "CSV with commas, utf-8, rows 1 to 2 of the list",
    ]


@pytest.mark.parametrize("block_bytes", [9, 1000])
def test_blank_lines_between_quotes_that_are_text_are_counted(
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    block_bytes: int,
) -> None:
    monkeypatch.setattr(text_encoding, "HEAD_BYTES", block_bytes)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", block_bytes)
    content = b'id,n\n1,5" pipe\n2,"x"\n3,a"\n\n4,"b\n'
    assert extract(tmp_path, {"list.csv": content}, quoting="none").height == 4
    assert f"{tmp_path}/list.csv: 1 blank line left out" in log.messages


@pytest.mark.parametrize(
    ("content", "fields", "problem"),
    [
        (b"sep=;\nid;n\n", {"delimiter": ","}, "stated to be ',', but its first line says ';'"),
        (
            b"id,n\n1,a\nn,id\nb,2\n",
            {},
            "row 2: the header is repeated with its columns in another order: it is several files",
        ),
        (
            b'"id","n"\n"1","a"\n\xef\xbb\xbf"id","n"\n"2","b"\n',
            {},
            "row 2: .* A byte order mark is before it: it is several files, joined. List them",
        ),
    ],
)
def test_lines_that_contradict_are_refused(
    tmp_path: Path, content: bytes, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SourceError, match=problem):
        extract(tmp_path, {"list.csv": content}, **fields)


def test_padded_name_that_is_asked_for_is_kept(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("id, n\n1,a\n")
    crm = FileCrm(path=str(tmp_path / "list.csv"))
    crm.extract(tmp_path / "out", frozenset({"id", " n"}))
    assert pl.read_parquet(tmp_path / "out").columns == ["id", " n"]


@pytest.mark.parametrize("end", ["", "1,a,,\n", "\n1,a,,\nid,n,,\n"])
def test_columns_without_a_name_do_no_harm_unless_they_are_needed(tmp_path: Path, end: str) -> None:
    (tmp_path / "list.csv").write_text(f"id , n,,\n{end}")
    (tmp_path / "more.csv").write_text("x,n,id,x\n,b,2,\n")
    crm = FileCrm(path=str(tmp_path / "*.csv"))
    crm.extract(tmp_path / "out", frozenset({"id", "n"}))
    assert pl.read_parquet(tmp_path / "out").rows() == [("1", "a")] * bool(end) + [("2", "b")]
    with pytest.raises(SourceError, match="list.csv: The columns 3, 4 have no name[.]"):
        crm.extract(tmp_path / "out")


@pytest.mark.parametrize("name", ["Straße", "stra\u00dfe\u200b", " STRASSE\u00a0", "straſſe"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_name_that_looks_like_a_needed_one_is_told_escaped(
    tmp_path: Path, name: str, kind: str
) -> None:
    first = {"id": ["1"], name: ["a"]}
    content = {
        "csv": f'id,"{name}"\n1,a\n'.encode(),
        "jsonl": json.dumps({"id": "1", name: "a"}).encode() + b'\n{"id": "2"}',
        "parquet": parquet(**first),
    }
    (tmp_path / f"list.{kind}").write_bytes(content[kind])
    with pytest.raises(ColumnMissing) as caught:
        FileCrm(path=str(tmp_path / f"list.{kind}")).extract(
            tmp_path / "out", frozenset({"id", "straße"})
        )
    told = name.strip(" \t") if kind == "csv" else name
    problem = f"The list has no column straße: column 2 is {told!a}, not 'straße'."
    assert caught.value.problem == problem


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_may_differ_in_columns_that_are_not_needed(tmp_path: Path, kind: str) -> None:
    files = {
        "1.csv": b"id,x,n\n1,y,a\n",
        "2.csv": b"n,id,z\nb,2,y\n",
        "1.parquet": parquet(id=["1"], x=["y"], n=["a"]),
        "2.parquet": parquet(n=["b"], id=["2"], z=["y"]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    FileCrm(path=f"{tmp_path}/*.{kind}").extract(tmp_path / "out", frozenset({"id", "n"}))
    assert pl.read_parquet(tmp_path / "out").rows() == [("1", "a"), ("2", "b")]


def test_pattern_combines_several_files(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    files = {
        "part-2.csv": b"name;id\nBob;2\nCid;3\n",
        "part-1.csv.gz": gzip.compress(b"id,name\n1,Ann\n"),
        "part-3.csv": codecs.BOM_UTF16_LE + "id\tname\n".encode("utf-16-le"),
        "other.txt": b"x",
    }
    (tmp_path / "part-4.csv").mkdir()
    frame = extract(tmp_path, files, "part-*")
    assert frame.rows(named=True) == [
        {"id": "1", "name": "Ann"},
        {"id": "2", "name": "Bob"},
        {"id": "3", "name": "Cid"},
    ]
    assert [message.removeprefix(f"{tmp_path}/") for message in log.messages] == [
        "part-1.csv.gz: CSV with commas, utf-8, rows 1 to 1 of the list",
        "part-2.csv: CSV with semicolons, utf-8, rows 2 to 3 of the list",
        "part-3.csv: CSV with tabs, utf-16-le, no rows",
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", ["1"]),
        ("**/*.csv", ["1", "4"]),
        ("*/*.csv", ["4"]),
        (".*.csv", ["2"]),
        (".hidden/*.csv", ["3"]),
    ],
)
def test_pattern_leaves_out_hidden_files(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for number, name in enumerate(("1.csv", ".2.csv", ".hidden/3.csv", "open/4.csv"), 1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"id\n{number}\n")
    FileCrm(path=f"{tmp_path}/{pattern}").extract(tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out")["id"].to_list() == found


def test_pattern_within_an_archive_leaves_out_hidden_files(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "lists.zip", "w") as archive:
        archive.writestr("1.csv", "id\n1\n")
        archive.writestr(".2.csv", "id\n2\n")
    crm = FileCrm(path=f"zip://*.csv::file://{tmp_path}/lists.zip")
    assert crm.extract(tmp_path / "out") == 1


def test_existing_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    assert extract(tmp_path, {"list [1].csv": b"id\n1\n"}).height == 1


def parquet(**columns: list[Any] | pl.Series) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


def test_parquet_file_is_read_as_text_compressed_or_not(tmp_path: Path) -> None:
    content = parquet(id=["1", "2"], n=[1, 2])
    for name, found in (("list.parquet", content), ("list.parquet.gz", gzip.compress(content))):
        assert extract(tmp_path, {name: found}).rows() == [("1", "1"), ("2", "2")]


def test_parquet_column_may_have_another_type_in_each_file(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    files = {
        "a.parquet": parquet(id=["1"], n=[1], x=[None], y=[None]),
        "b.parquet": parquet(y=[None, None], x=[2, 3], n=[2.5, None], id=["2", "3"]),
    }
    frame = extract(tmp_path, files, "*.parquet")
    assert frame.rows(named=True) == [
        {"id": "1", "n": "1", "x": None, "y": None},
        {"id": "2", "n": "2.5", "x": "2", "y": None},
        {"id": "3", "n": None, "x": "3", "y": None},
    ]
    assert log.messages[1].endswith("b.parquet: Parquet, rows 2 to 3 of the list")


def identifiers_in_structs() -> bytes:
    """What Arrow cannot make an empty column of."""
    file, ids = io.BytesIO(), pa.array([bytes(16)], pa.uuid())
    write_table(pa.table({"v": pa.StructArray.from_arrays([ids], ["u"])}), file)
    return file.getvalue()


WHOLE = parquet(id=["1"], n=[1])


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "there is no such file"),
        (
            {"a.csv": b"id,x\n", "b.csv": b"y,id\n"},
            "b.csv has .*lacks x and has 1 other. Look",
        ),
        (
            {"a.csv": b"id,x\n", "b.csv": b"id\n"},
            "b.csv has .*: it lacks x. Look",
        ),
        (
            {"a.csv": b"id,x\n", "b.csv": b"01,Zoe\n"},
            "b.csv has .*lacks id, x and has 2 others. Look",
        ),
        (
            {"a.csv": b"id,Ada Lovelace\n", "b.csv": b"01,Zoe\n"},
            "b.csv has .*lacks id, that file's column 2 and has 2 others. Look",
        ),
        (
            {"a.csv": b"1,ada,sms\n", "b.csv": b"customer_id,name,channel\n"},
            "b.csv has .*lacks that file's column 1, .* 2, .* 3 and has 3 others. Look",
        ),
        ({"a.csv": b"id\n", "b.parquet": b""}, "a.csv and .*b.parquet are of different formats"),
        ({"a.csv": b"id\n", "b": b""}, "/b: its name does not say its format"),
        (
            {"a.parquet": identifiers_in_structs()},
            "a.parquet, column v is of type struct<.*, which has no text",
        ),
        (
            {"a.parquet": WHOLE, "b.parquet": parquet(id=["1"], n=[[1]])},
            r"b.parquet, column n is of type .*list<.*, which has no text",
        ),
        ({"a.parquet": WHOLE, "b.parquet": parquet(id=["1"])}, "b.parquet has .*: it lacks n[.]"),
        (
            {"a.parquet": WHOLE, "b.parquet": parquet(id=["1"], n=[1], x=[1], y=[1])},
            "b.parquet has .*: it has in addition x, y[.] ",
        ),
        ({"a.parquet": WHOLE, "b.parquet": b"PAR1"}, "b.parquet is damaged, or no Parquet"),
        (
            {"a.parquet": WHOLE, "b.parquet": WHOLE[:4] + b"\xff" * 16 + WHOLE[20:]},
            "b.parquet is damaged",
        ),
    ],
)
def test_files_that_do_not_combine_are_refused(tmp_path: Path, files: Files, problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        extract(tmp_path, files, "*")


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    write_table(table, file, **options)
    return file.getvalue()


def old_timestamps(*times: tuple[int, int]) -> bytes:
    """A file with these days since 1970 and nanoseconds as INT96, as Impala and Spark write it."""
    column = pa.array([n * 10**9 for n in range(1, len(times) + 1)], pa.timestamp("ns"))
    content = as_parquet(
        pa.table({"at": column}),
        use_deprecated_int96_timestamps=True,
        compression="none",
        use_dictionary=False,
    )
    for n, (day, nanoseconds) in enumerate(times, 1):
        placeholder = struct.pack("<QI", n * 10**9, 2440588)
        content = content.replace(placeholder, struct.pack("<QI", nanoseconds, day + 2440588))
    return content


def test_old_timestamps_keep_all_their_digits(tmp_path: Path) -> None:
    near, far, beyond = (0, 1), (2932896, 5_000), (2**32 - 1 - 2440588, 0)
    found = extract(tmp_path, {"a.parquet": old_timestamps(near)}, "a.parquet")
    assert found.rows() == [("1970-01-01 00:00:00.000000001",)]
    found = extract(tmp_path, {"b.parquet": old_timestamps(near, far)}, "b.parquet")
    assert found["at"].to_list() == ["1970-01-01 00:00:00.000000001", "9999-12-31 00:00:00.000005"]
    with pytest.raises(SourceError, match="column at, row 2, holds a time beyond the years 1 to"):
        extract(tmp_path, {"c.parquet": old_timestamps(near, beyond)}, "c.parquet")


def test_parquet_column_of_a_type_that_is_not_read_is_told(tmp_path: Path) -> None:
    content = parquet(id=["1"], n=pl.Series([1], dtype=pl.Int128))
    with pytest.raises(SourceError, match="list.parquet has a column of a type .* write it as te"):
        extract(tmp_path, {"list.parquet": content})


def test_parquet_columns_of_one_name_are_refused_if_they_are_needed(tmp_path: Path) -> None:
    file = tmp_path / "list.parquet"
    file.write_bytes(as_parquet(pa.table([["1"], ["2"], ["3"]], ["a", "b", "b"])))
    crm, target = FileCrm(path=str(file)), tmp_path / "out"
    assert crm.extract(target, frozenset(["a"])) == 1
    with pytest.raises(SourceError, match="two columns of one name: b"):
        crm.extract(target, frozenset(["b"]))
    with pytest.raises(SourceError, match="two columns of one name: 2, 3"):
        crm.extract(target)


def test_wide_rows_of_parquet_are_read_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    write = ListWriter.write
    monkeypatch.setattr(
        ListWriter, "write", lambda *each: (seen.append(each[1].nbytes), write(*each))
    )
    notes = pa.array([f"{n % 50:02}" * 5_000 for n in range(6_000)])
    for name, table in {"plain": notes, "dictionary": notes.dictionary_encode()}.items():
        content = as_parquet(pa.table({"a": table, "n": range(6_000)}))
        assert (
            extract(tmp_path, {f"{name}.parquet": content}, f"{name}.parquet")["a"].len() == 6_000
        )
        assert max(seen) < 24 * 1024 * 1024
    narrow = as_parquet(pa.table({"n": range(100_000)}))
    seen.clear()
    extract(tmp_path, {"narrow.parquet": narrow}, "narrow.parquet")
    assert len(seen) < 12


def test_folder_of_a_partitioned_list_is_told_to_be_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "country=DE"
    folder.mkdir()
    (folder / "part.parquet").write_bytes(WHOLE)
    crm = FileCrm(path=f"{tmp_path}/*/part.parquet")
    with pytest.raises(SourceError, match="no column country: country=… is a folder"):
        crm.extract(tmp_path / "out", frozenset(["id", "country"]))


def test_file_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.parquet")).write_bytes(WHOLE)
    with pytest.raises(SourceError, match="is not UTF-8: rename the file"):
        extract(tmp_path, {}, "*.parquet")


def test_ndjson_numbers_keep_their_notation(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    lines = (
        '{"id": "000123", "n": 1.10, "big": 12345678901234567890.12, "exp": -1E+05}\r\n'
        '\r\n{"n": true, "id": null, "big": 123456789012345678901234567890, "exp": false}\n'
        '{"late": "\\ud83d\\ude42\\u0000", "id": ""}'
    )
    frame = extract(tmp_path, {"list.ndjson": lines.encode()})
    assert frame.columns == ["id", "n", "big", "exp", "late"]
    assert frame.rows() == [
        ("000123", "1.10", "12345678901234567890.12", "-1E+05", None),
        (None, "true", "123456789012345678901234567890", "false", None),
        ("", None, None, None, "\U0001f642\0"),
    ]
    assert log.messages == [f"{tmp_path}/list.ndjson: NDJSON, utf-8, rows 1 to 3 of the list"]


# JSON as it may be written, and the text it stands for.
NUMBER = r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?"
written = st.one_of(
    st.text(max_size=5).map(lambda text: (json.dumps(text), text)),
    st.from_regex(NUMBER, fullmatch=True).map(lambda number: (number, number)),
    st.sampled_from([("true", "true"), ("false", "false"), ("null", None)]),
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=2)
objects = st.dictionaries(names, written, min_size=1, max_size=4)


@settings(max_examples=40)
@given(
    st.lists(st.lists(objects, max_size=5), min_size=1, max_size=3),
    st.sampled_from(["utf-8", "utf-16"]),
    st.integers(1, 80),
    st.integers(1, 9),
)
def test_ndjson_of_any_objects_is_read_back_exactly(
    files: list[list[dict[str, tuple[str, str | None]]]],
    encoding: str,
    block_bytes: int,
    cells: int,
) -> None:
    lines = [
        ["{" + ", ".join(f"{json.dumps(key)}: {row[key][0]}" for key in row) + "}" for row in rows]
        for rows in files
    ]
    contents = {
        f"{number}.jsonl": "\n".join(each).encode(encoding) for number, each in enumerate(lines)
    }
    rows = [row for rows in files for row in rows]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoding, "HEAD_BYTES", max(block_bytes, 2))
        patch.setattr(ndjson, "BLOCK_BYTES", block_bytes)
        patch.setattr(ndjson, "CELLS_AT_ONCE", cells)
        if not rows:
            with pytest.raises(SourceError, match="is empty"):
                extract(Path(folder), contents, "*.jsonl")
            return
        frame = extract(Path(folder), contents, "*.jsonl")
    assert frame.columns == list(dict.fromkeys(key for row in rows for key in row))
    assert frame.rows(named=True) == [
        {key: row[key][1] if key in row else None for key in frame.columns} for row in rows
    ]


def third(line: str) -> bytes:
    """A file with this line among others."""
    return f'{{"a": "x"}}\n\n{line}\n{{"a": 1}}'.encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (third("[1]"), ", line 3 is not an object with keys: NDJSON has one object a line"),
        (
            b'[{"a": 1}, {"a": 2}]',
            ", line 1 is not an object with keys: NDJSON has one object a line",
        ),
        (b'[\n{"a": 1},\n{"a": 2}]', ", line 1 is not valid JSON: NDJSON has one object a line"),
        (b'{\n"a": 1\n}', ", line 1 is not valid JSON: NDJSON has one object a line"),
        (third("{}"), ", line 3 is not an object with keys"),
        (third('{"a": 1'), ", line 3 is not valid JSON"),
        (third('{"a": 1} {"a": 2}'), ", line 3 is not valid JSON"),
        (third('{"a": ' + "[" * 100_000), ", line 3 is not valid JSON"),
        (third("\N{NO-BREAK SPACE}"), ", line 3 is not valid JSON"),
        (third('{"a": NaN}'), ", line 3: column 1 holds NaN or Infinity"),
        (
            third('{"a": 1, "b": 2, "a": 3}'),
            ", line 3 names a key twice[.] Nothing was changed[.] "
            "Correct the list or the CRM block",
        ),
        (third('{"b": "x", "a": {"c": 1}}'), ", line 3: column 2 holds a nested value"),
        (third('{"a": []}'), ", line 3: column 1 holds a nested value"),
        (third('{"a": "\\ud800"}'), ", line 3: column 1 holds half of a surrogate pair"),
        (b'{"a": 1}\n{"a": "\xff"}', ", line 2 is not valid UTF-8"),
        (b" \n", " is empty"),
        (b'{"\\udfff": 1}', " has a key with NUL or half"),
        (b'{"\\u0000": 1}', " has a key with NUL or half"),
        (b'{"a": 1, "b": 2}\n{"c": 1}', " has more than 2 columns"),
    ],
)
def test_ndjson_that_is_no_list_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    monkeypatch.setattr(ndjson, "MOST_FIELDS", 2)
    with pytest.raises(SourceError, match=f"list.jsonl{problem}"):
        extract(tmp_path, {"list.jsonl": content})


def test_ndjson_fields_that_are_not_needed_do_not_matter(tmp_path: Path) -> None:
    lines = [
        '{"x": {"a": 1, "a": 2}}',
        '{"x": [1, "a"], "id": "1", "y": NaN, "y": 2}',
        '{"\\u0000": 1, "n": 2, "\\ud800": "\\ud800"}',
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    crm = FileCrm(path=str(tmp_path / "list.jsonl"))
    assert crm.extract(tmp_path / "out", frozenset({"n", "id"})) == 3
    frame = pl.read_parquet(tmp_path / "out")
    assert frame.rows(named=True) == [
        {"id": None, "n": None},
        {"id": "1", "n": None},
        {"id": None, "n": "2"},
    ]
    with pytest.raises(SourceError, match="line 2 names a key twice"):
        crm.extract(tmp_path / "out", frozenset({"y"}))
    with pytest.raises(SourceError, match="The list has no column zip"):
        crm.extract(tmp_path / "out", frozenset({"zip"}))


@pytest.mark.parametrize(
    ("others", "key"),
    [
        *(({"id": "1"}, key) for key in ("Ann Miller", "ada@example.com", "000124", "Zoë")),
        ({"ann": "1"}, "ada"),
    ],
)
def test_ndjson_key_that_may_be_a_value_is_told_by_its_place(
    tmp_path: Path, others: dict[str, str], key: str
) -> None:
    line = json.dumps({**others, key: [True, "Ann"]})
    with pytest.raises(SourceError, match="line 1: column 2 holds a nested value") as caught:
        extract(tmp_path, {"list.jsonl": line.encode()})
    assert key not in caught.value.problem.removeprefix(str(tmp_path))


def test_ndjson_key_that_is_asked_for_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"id": "1", "plan": {"ada": 1}}')
    with pytest.raises(SourceError, match="line 1: plan holds a nested value"):
        FileCrm(path=str(tmp_path / "list.jsonl")).extract(tmp_path / "out", frozenset({"plan"}))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"000123,Ann Miller\n", b"000124,ada@example.com\n"),
        (b"id,n\n", b"000124,ada@example.com\n"),
        (b"1,ada,sms,diabetes\n2,bob,email,none\n", b"customer_id,name,channel,diag\n3,c,d,e\n"),
    ],
)
def test_file_without_header_row_is_refused_without_its_values(
    tmp_path: Path, first: bytes, second: bytes
) -> None:
    with pytest.raises(SourceError, match="b.csv has other columns") as caught:
        extract(tmp_path, {"a.csv": first, "b.csv": second}, "*.csv")
    values = ("00012", "Miller", "ada", "bob", "sms", "email", "diabetes")
    assert not any(each in caught.value.problem for each in values)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"path": "/l.parquet", "delimiter": ";"}, "parquet files have no delimiter"),
        ({"path": "https://crm/l.jsonl?sig", "header": ["id"]}, "ndjson files have no header"),
        ({"path": "/l.parquet.gz", "encoding": "utf-8"}, "parquet files have no encoding"),
        ({"path": "/l.jsonl", "header": ["id"]}, "ndjson files have no header"),
        (
            {"path": "/l.csv", "format": "ndjson", "delimiter": ","},
            "ndjson files have no delimiter",
        ),
        ({"path": "/l.csv", "delimiter": "||"}, "one ASCII character"),
        ({"path": "/l.csv", "delimiter": '"'}, "one ASCII character"),
        ({"path": "/l.csv", "delimiter": "§"}, "one ASCII character"),
        ({"path": "/l.csv", "encoding": "windows-0"}, "no such encoding"),
        ({"path": "/l.csv", "encoding": "base64"}, "no such encoding"),
        ({"path": "/l.csv", "header": []}, "at least 1 item"),
        ({"path": "/l.csv", "header": ["id", ""]}, "each column needs a name"),
        ({"path": "/l.csv", "header": ["id", "\0"]}, "without NUL"),
        ({"path": "/l.csv", "header": ["id", "id"]}, "unique"),
        ({"path": "/l.csv", "quoting": "none", "escape": "backslash"}, "no quotes to escape"),
        ({"path": "/l.parquet", "quoting": "none"}, "parquet files have no quoting"),
        ({"path": "/l.jsonl", "escape": "backslash"}, "ndjson files have no escape"),
        ({"path": "/l.csv", "format": "excel"}, "'csv', 'parquet' or 'ndjson'"),
    ],
)
def test_block_with_contradicting_fields_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        FileCrm.model_validate(fields)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("list.xlsx", "does not say its format"),
        ("none.csv", "none.csv: there is no such file"),
        ("list.parquet", "list.parquet is damaged, or no Parquet file"),
        ("folder.csv", "folder.csv is a folder: state a pattern"),
        ("nofs://list.csv", "ValueError"),
        ("dropbox://list.csv", "library for such a URL is not installed"),
    ],
)
def test_path_that_leads_to_no_list_is_refused(tmp_path: Path, path: str, problem: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("list.xlsx", "list.parquet"):
        (tmp_path / name).write_bytes(b"no list")
    where = path if "://" in path else str(tmp_path / path)
    with pytest.raises(SourceError, match=problem):
        FileCrm.model_validate({"path": where, "storage_options": {}}).extract(tmp_path / "out")


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """The options of an S3 server with a bucket named crm."""
    with stores.s3() as url:
        options = s3_options(url)
        fsspec.filesystem("s3", **options).mkdir("crm")
        yield options


def s3_options(url: str) -> dict[str, Any]:
    return {
        "key": "key",
        "secret": "s3cret",
        "client_kwargs": {"endpoint_url": url},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }


def test_s3_files_are_read_and_listed_anew(
    tmp_path: Path, s3: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    fs = fsspec.filesystem("s3", **s3)
    crm = FileCrm(path="s3://crm/day/*.csv*", storage_options=SecretDict(s3))
    fs.pipe_file("crm/day/1.csv", b"id\n1\n")
    assert crm.extract(tmp_path / "list.parquet") == 1
    # Seen although the folder was listed before.
    elsewhere = fsspec.filesystem("s3", skip_instance_cache=True, **s3)
    elsewhere.pipe_file("crm/day/2.csv.gz", gzip.compress(b"id\n2\n"))
    assert crm.extract(tmp_path / "list.parquet") == 2
    assert "s3://crm/day/2.csv.gz: CSV with commas, utf-8, rows 2 to 2 of the list" in log.messages
    assert "s3cret" not in log.text
    missing = FileCrm(path="s3://crm/none.csv", storage_options=SecretDict(s3))
    with pytest.raises(SourceError, match="s3://crm/none.csv: there is no such file"):
        missing.extract(tmp_path / "list.parquet")


class Store(FakeService):
    """Answers with the status that a path begins with; /200/short.csv ends too early."""

    def answer(self, request: Request) -> Reply:
        content = b"id\n1\n"
        if "short" in request.path:
            return Reply(200, content + b"2\n" * 5, cut_off=len(content))
        if "signed" in request.path:
            return Reply(200 if request.query.get("signature") == "s3cret" else 403, content)
        return Reply(int(request.path.split("/")[1]), content)


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    with serving(Store()) as store:
        yield store.url.removeprefix("http://")


def test_signed_url_is_read(tmp_path: Path, http: str) -> None:
    signed = SecretDict({"params": {"signature": "s3cret"}})
    crm = FileCrm(path=f"http://{http}/signed/list.csv", storage_options=signed)
    assert crm.extract(tmp_path / "list.parquet") == 1


NOBODY = "127.0.0.1:1"
NO_S3 = s3_options(f"http://{NOBODY}")
SIGNED: dict[str, Any] = {"params": {"signature": "s3cret"}}
SIGNED_IN: dict[str, Any] = {"username": "user", "password": "s3cret"}


@pytest.mark.parametrize(
    ("url", "options", "kind", "problem"),
    [
        (
            "http://{http}/200/short.csv",
            SIGNED,
            SourceUnavailable,
            "reached: .*, the connection ended",
        ),
        (
            "http://{http}/503/list.csv",
            SIGNED,
            SourceUnavailable,
            "reached: .* 503, the server is busy",
        ),
        (f"http://{NOBODY}/list.csv", SIGNED, SourceUnavailable, "could not be reached"),
        (f"ftp://{NOBODY}/list.csv", SIGNED_IN, SourceUnavailable, "could not be reached"),
        ("s3://crm/list.csv", NO_S3, SourceUnavailable, "could not be reached"),
        ("s3://crm/*.csv", NO_S3, SourceUnavailable, "could not be reached"),
        ("http://{http}/404/list.csv", SIGNED, SourceError, "there is no such file"),
        (
            "http://{http}/403/list.csv",
            SIGNED,
            SourceError,
            "not be read: the server answered 403, the link",
        ),
    ],
)
def test_error_of_a_store_is_unavailable_only_if_transient(
    tmp_path: Path,
    http: str,
    url: str,
    options: dict[str, Any],
    kind: type[SourceError],
    problem: str,
) -> None:
    path = url.format(http=http)
    with pytest.raises(SourceError, match=problem) as caught:
        FileCrm(path=path, storage_options=SecretDict(options)).extract(tmp_path / "out")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(path)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "problem"),
    [
        (
            OSError(errno.ESTALE, "s3cret"),
            SourceUnavailable,
            "could not be reached: Stale file handle",
        ),
        (OSError(errno.EIO, "s3cret"), SourceUnavailable, "reached: Input/output error"),
        (PermissionError("s3cret"), SourceError, "may not be read by this user or with these keys"),
    ],
)
def test_error_of_a_drive_is_unavailable_unless_it_forbids(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    kind: type[SourceError],
    problem: str,
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "get_file", Mock(side_effect=error))
    with pytest.raises(SourceError, match=problem) as caught:
        FileCrm(path="memory://crm/list.csv").extract(tmp_path / "out")
    assert type(caught.value) is kind
