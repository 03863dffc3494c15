import io
from tempfile import TemporaryFile

import polars as pl
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


def mapped(written: bytes) -> list[tuple[str, ...]]:
    """The rows of a file read at once."""
    with TemporaryFile() as file:
        file.write(written)
        blocks = list(rfc4180.mapped(file))
    frames = [pl.DataFrame(pl.from_arrow(block.table)) for block in blocks]
    return pl.concat(frames).rows()


def test_csv_reads_null_back_as_empty_text() -> None:
    written = rfc4180.write(pl.DataFrame({"a": [None, "x"], "b": ["", None]}))
    assert rfc4180.read(written).rows() == [("", ""), ("x", "")]


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
        (b"a,a\n1,2\n", "more than once: a"),
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


@pytest.mark.parametrize("data", [b"a,b\r1,2\r3,4\r", b'a,b,"' + b"x" * 70_000 + b'"\n1,2,3\n'])
def test_mapped_csv_falls_back_to_blocks(data: bytes) -> None:
    assert mapped(data) == rfc4180.read(data).rows()


def test_csv_refuses_invalid_utf8_in_later_block() -> None:
    data = b"a,b\n" + b"1,2\n" * 50 + b"3,\xff\n"
    with pytest.raises(rfc4180.MalformedCsv, match="invalid UTF-8"):
        list(rfc4180.frames(io.BytesIO(data), 16))
