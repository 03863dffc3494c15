"""The bytes of text columns: some questions are answered by all at once, many times as fast as by
one value after the other.
"""

from __future__ import annotations

from functools import cache

from nudgescribe.lazy import np, npt, pa


@cache
def text_type() -> pa.DataType:
    """Return the type of all columns of a list, whose values begin where 64-bit numbers say."""
    return pa.large_string()


def text_bytes(values: pa.Array) -> tuple[npt.NDArray[np.int64], bytes]:
    """Return where each value of `text_type` begins, with the end of all as the last place, and the
    bytes of all; null has none.
    """
    _, places, data = values.buffers()
    offsets = np.frombuffer(places, np.int64)[values.offset : values.offset + len(values) + 1]
    if data is None or not len(offsets):
        return np.zeros(len(values) + 1, np.int64), b""
    begin, end = int(offsets[0]), int(offsets[-1])
    return offsets - begin, data.slice(begin, end - begin).to_pybytes()
