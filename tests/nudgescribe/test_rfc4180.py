import io
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nudgescribe import rfc4180

values = st.text(st.sampled_from('",\n\r;aé李🙂0 \0') | st.characters(codec="utf-8"), max_size=8)
rows = st.lists(st.tuples(values, values), max_size=12)
KEPT = [("00123", "NA"), ("1e5", 'quoted "x"')]


def frame_of(pairs: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"a": pl.String, "b": pl.String}, orient="row")


@given(rows, st.integers(1, 64))
@example([("x\r\ny", "\r"), ("", ""), ("00123", "NULL")], 3)
def test_csv_is_read_back_with_any_block_size(
    pairs: list[tuple[str, str]], block_bytes: int
) -> None:
    written = rfc4180.write(frame_of(pairs))
    frames = list(rfc4180.frames(io.BytesIO(written), block_bytes))
    assert pl.concat(frames).rows() == pairs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rfc4180, "PIECE_BYTES", block_bytes)
        assert mapped(written) == pairs


quoted = values.map(lambda text: '"' + text.replace('"', '""') + '"')
lines = st.tuples(quoted | st.text("ab0 ", max_size=3), st.just(","), quoted | values)
damages = st.tuples(
    st.integers(0, 99), st.sampled_from(['"', '""', ",", "\r", "\n", "x", "\udcff"])
)


@given(
    st.lists(lines, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    damages | st.none(),
    st.integers(1, 64),
)
@example([], "\n", (0, '"'), 1)
def test_rows_taken_apart_at_their_quotes_are_those_that_are_parsed(
    pairs: list[tuple[str, ...]], end: str, damage: tuple[int, str] | None, piece_bytes: int
) -> None:
    """Whole, malformed or odd ones."""
    text = f"a,b{end}" + end.join(map("".join, pairs))
    if damage:
        text = text[: damage[0]] + damage[1] + text[damage[0] :]
    data = text.encode(errors="surrogateescape")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rfc4180, "PIECE_BYTES", piece_bytes)
        wanted = rows_or_error(lambda: rfc4180.read(data).rows())
        assert rows_or_error(lambda: mapped(data)) == wanted
        first = rows_or_error(lambda: [row[0] for row in mapped(data, first_only=True)])
    assert first == (wanted if isinstance(wanted, str) else [row[0] for row in wanted])


def rows_or_error(read: Callable[[], list[Any]]) -> list[Any] | str:
    try:
        return read()
    except rfc4180.MalformedCsv:
        return "malformed"


def mapped(written: bytes, first_only: bool = False) -> list[tuple[str, ...]]:
    """The rows of a file read at once."""
    with TemporaryFile() as file:
        file.write(written)
        blocks = list(rfc4180.mapped(file, first_only))
    frames = [pl.DataFrame(pl.from_arrow(block.table)) for block in blocks]
    return pl.concat(frames).rows()


def test_csv_reads_null_back_as_empty_text() -> None:
    written = rfc4180.write(pl.DataFrame({"a": [None, "x"], "b": ["", None]}))
    assert rfc4180.read(written).rows() == [("", ""), ("x", "")]


@given(st.lists(st.tuples(st.none() | values, st.none() | values), max_size=12), st.integers(0, 3))
def test_csv_is_what_polars_writes(pairs: list[tuple[str, str]], skipped: int) -> None:
    frame = frame_of(pairs)
    batch = pa.record_batch([each.to_arrow() for each in frame], frame.columns)
    rest = frame.slice(skipped)
    assert rfc4180.write(frame) == frame.write_csv(line_terminator="\r\n").encode()
    assert rfc4180.write(batch.slice(skipped)) == rest.write_csv(line_terminator="\r\n").encode()


def test_csv_of_one_column_has_no_blank_line() -> None:
    assert rfc4180.write(pl.DataFrame({"a": [None, "", "x"]})) == b'a\r\n""\r\n""\r\nx\r\n'


@pytest.mark.parametrize(
    ("data", "columns", "rows"),
    [
        (b'id,v\r\n00123,NA\r\n1e5,"quoted ""x"""\r\n', ["id", "v"], KEPT),
        (b"a,b", ["a", "b"], []),
        (b'"a\nb",c\n', ["a\nb", "c"], []),
        (b"\xef\xbb\xbfa,b\n1,2\n", ["a", "b"], [("1", "2")]),
    ],
)
def test_csv_keeps_values_and_columns_as_text(
    data: bytes, columns: list[str], rows: list[tuple[str, ...]]
) -> None:
    frame = rfc4180.read(data)
    assert frame.schema == dict.fromkeys(columns, pl.String())
    assert frame.rows() == rows


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b"\n1\n", "no header row"),
        (b"a,a\n1,2\n", "in the columns 1, 2"),
        (b"a,b,,\n1,2,,\n", "The columns 3, 4 have no name[.]"),
        (b"a,a,,\n1,2,,\n", "in the columns 1, 2[.]"),
        (b"a,b\n1\n", "too many or too few"),
        (b"a,b\n1,2,3\n", "too many or too few"),
        (b'a,b\n1,"cut', "cut off"),
        (b"a,b\n1,\xff\n", "UTF-8"),
        (b"\xff,b\n1,2\n", "UTF-8"),
    ],
)
def test_malformed_csv_is_refused_without_its_values(data: bytes, problem: str) -> None:
    with pytest.raises(rfc4180.MalformedCsv, match=problem):
        rfc4180.read(data)
    with pytest.raises(rfc4180.MalformedCsv, match=problem):
        mapped(data)


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\r1,2\r3,4\r",
        b'a,b,"' + b"x" * 70_000 + b'"\n1,2,3\n',
        "a,bé\r".encode() + "é,é\r".encode() * 20_000,
    ],
)
def test_mapped_csv_falls_back_to_blocks(data: bytes) -> None:
    assert mapped(data) == rfc4180.read(data).rows()


def test_csv_refuses_invalid_utf8_in_later_block() -> None:
    data = b"a,b\n" + b"1,2\n" * 50 + b"3,\xff\n"
    with pytest.raises(rfc4180.MalformedCsv, match="invalid UTF-8"):
        list(rfc4180.frames(io.BytesIO(data), 16))


STRAY = [
    (b'1,"ab"cd\r\n', "behind a closing quote", 1),
    (b'1,x\n2,"a"b"\n', "behind a closing quote", 2),
    (b'1,"x" \n', "behind a closing quote", 1),
    (b'1,5" pipe\n2,6\n', "in an unquoted value", 1),
    (b'1,x\n,\n2,"y\n"\n3,5"\n4,6"\n', "in an unquoted value", 4),
    (b'1, "x"\n', "in an unquoted value", 1),
    (b'1,x\n"4"0,y\n', "behind a closing quote", 2),
    (b'1,""x\n', "behind a closing quote", 1),
    (b'1,x""\n', "in an unquoted value", 1),
    (b'1,"say \\"hi\\""\n', "behind a closing quote", 1),
    (b'1,x\n2,"\n3,"y"\n', "behind a closing quote", 2),
    (b'1,x\r2,5"\r', "in an unquoted value", 2),
]


@pytest.mark.parametrize(("rows", "problem", "row"), STRAY)
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 100])
def test_stray_quote_is_refused_with_its_row(
    monkeypatch: pytest.MonkeyPatch, rows: bytes, problem: str, row: int, block_bytes: int
) -> None:
    monkeypatch.setattr(rfc4180, "PIECE_BYTES", block_bytes)
    data = b"a,b\n" + rows
    with pytest.raises(rfc4180.StrayQuote, match=problem) as caught:
        list(rfc4180.frames(io.BytesIO(data), block_bytes))
    assert caught.value.row == row
    with pytest.raises(rfc4180.StrayQuote, match=problem):
        mapped(data)


@pytest.mark.parametrize("data", [b'a,"b"c\n1,2\n', b'a,b"\n1,2"\n'])
def test_stray_quote_in_header_row_is_refused_without_a_row(data: bytes) -> None:
    for read in (rfc4180.read, mapped):
        with pytest.raises(rfc4180.StrayQuote) as caught:
            read(data)
        assert caught.value.row is None


@given(st.text(st.sampled_from('",\n\rx '), max_size=20), st.integers(1, 9))
def test_quotes_are_judged_as_a_reader_of_single_characters_does(
    text: str, block_bytes: int
) -> None:
    dialect = rfc4180.Dialect("\t")
    try:
        list(rfc4180.frames(io.BytesIO(text.encode()), block_bytes, dialect, ["a"]))
        stray = False
    except rfc4180.MalformedCsv as error:
        stray = isinstance(error, rfc4180.StrayQuote)
    assert stray == has_stray_quote(text)


def has_stray_quote(text: str) -> bool:
    """Whether a quote is neither at an end of a value nor one of two within it."""
    state = "begin"
    for one in text:
        if state == "quoted":
            state = "closed" if one == '"' else "quoted"
        elif one in "\r\n":
            state = "begin"
        elif one == '"' and state in ("begin", "closed"):
            state = "quoted"
        elif one == '"' or state == "closed":
            return True
        else:
            state = "text"
    return False


def test_file_without_quoting_is_read_with_its_quotes() -> None:
    data = b'id\t"n"\n1\t"Blue Hour" live\n2\t5"\n\n3\t"\n'
    dialect = rfc4180.Dialect("\t", quoted=False, blank_rows=False)
    for size in (1, 4, 100):
        frames = pl.concat(list(rfc4180.frames(io.BytesIO(data), size, dialect)))
        assert frames.columns == ["id", '"n"']
        assert frames.rows() == [("1", '"Blue Hour" live'), ("2", '5"'), ("3", '"')]


def test_columns_that_are_not_needed_may_have_one_name() -> None:
    header = b"a,,b,,b\n"
    for rows in (b"", b"1,2,3,4,5\n"):
        (block,) = rfc4180.blocks(io.BytesIO(header + rows), needed={"a"})
        assert block.table.schema.names == ["a", "", "b", "", "b"]
    assert [str(each[0]) for each in block.table.columns] == ["1", "2", "3", "4", "5"]
    with pytest.raises(rfc4180.RepeatedColumns, match="in the columns 3, 5[.]"):
        list(rfc4180.blocks(io.BytesIO(header), needed={"a", "b"}))


@pytest.mark.parametrize(("data", "row"), [(b'a,b\n1,2\n3,"x\n', 2), (b'a,"b', None)])
def test_open_quote_is_refused_with_its_row(data: bytes, row: int | None) -> None:
    with pytest.raises(rfc4180.MalformedCsv, match="cut off") as caught:
        rfc4180.read(data)
    assert caught.value.row == row


def test_blank_lines_are_rows_unless_a_dialect_has_none() -> None:
    data, dialect = b"a,b\n\n1,2\r\n\r\n3,4\n", rfc4180.Dialect(blank_rows=False)
    read = partial(rfc4180.frames, dialect=dialect)
    assert next(read(io.BytesIO(data))).rows() == [("1", "2"), ("3", "4")]
    assert rfc4180.read(data).rows() == [("", ""), ("1", "2"), ("", ""), ("3", "4")]
    assert next(read(io.BytesIO(b"a\n1\n\n2\n"))).rows() == [("1",), ("",), ("2",)]
