"""Sets of customers, compared a share at a time."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe import identifiers
from nudgescribe.identifiers import Counts, compare, repeated_ids

Rows = list[tuple[str, int]]
BITS = 2
"""Of a hash, for its share; many shares are many files."""
IDS = st.sampled_from(["1", "01", "", " ", "a", "A", "ä", "customer-1", "\0"])
SIDES = st.lists(st.tuples(IDS, st.integers(0, 1)), max_size=12)


def frames(rows: Rows, size: int = 3) -> Iterator[pl.DataFrame]:
    schema = {"id": pl.String, "content": pl.UInt64}
    for first in range(0, len(rows), size):
        yield pl.DataFrame(rows[first : first + size], schema, orient="row")


@contextmanager
def holding(few: int) -> Generator[Path]:
    """A folder for what is more than a few; it is split into few shares."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(identifiers, "SHARES", 2**BITS)
        patch.setattr(identifiers, "SHARE_BITS", 64 - BITS)
        patch.setattr(identifiers, "ROWS_HELD", few)
        patch.setattr(identifiers, "HASHES_HELD", few)
        yield Path(folder)


def expected(before: Rows, after: Rows) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    sides: list[dict[str, tuple[int, int]]] = [{}, {}]
    for side, rows in zip(sides, (before, after), strict=True):
        for row, (customer, content) in enumerate(rows):
            if customer in side:
                found.append((customer, "repeated", row))
            side.setdefault(customer, (content, row))
    earlier, later = sides
    for customer, (content, row) in later.items():
        if customer not in earlier:
            found.append((customer, "added", row))
        else:
            same = earlier[customer][0] == content
            found.append((customer, "unchanged" if same else "changed", row))
    removed = earlier.keys() - later.keys()
    return sorted([*found, *((each, "removed", earlier[each][1]) for each in removed)])


@given(before=SIDES, after=SIDES, held=st.sampled_from([1, 5, 13]))
def test_compare_says_of_each_customer_what_became_of_it(
    before: Rows, after: Rows, held: int
) -> None:
    with holding(held) as folder:
        shares = [*compare(frames(before), frames(after), folder)]
    found = sorted(pl.concat(shares).select("id", "change", "row").rows())
    assert found == expected(before, after)


def test_counts_add_up_over_all_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifiers, "ROWS_HELD", 2000)
    monkeypatch.setattr(identifiers, "HASHES_HELD", 2000)
    before: Rows = [(str(number), 0) for number in range(3000)]
    after: Rows = [(str(number), number % 2) for number in range(1000, 4000)]
    after.append(("1000", 0))
    counts = Counts()
    for share in compare(frames(before, 500), frames(after, 700), tmp_path):
        counts.add(share)
    assert counts == {
        "removed": 1000, "unchanged": 1000, "changed": 1000, "added": 1000, "repeated": 1
    }  # fmt: skip
    ids = [frame["id"] for frame in frames(after, 700)]
    assert [*repeated_ids(lambda: ids, tmp_path)] == ["1000"]


@given(ids=st.lists(IDS, max_size=12), held=st.integers(1, 20))
def test_repeated_ids_are_those_that_come_twice(ids: list[str], held: int) -> None:
    parts = [pl.Series(ids[:4]), pl.Series(ids[4:]), pl.Series(["else"])]
    texts = [part.cast(pl.String) for part in parts]
    with holding(held) as folder:
        found = repeated_ids(lambda: texts, folder)
    assert sorted(found) == sorted({each for each in ids if ids.count(each) > 1})


def test_identifiers_of_one_hash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(series: pl.Series) -> pl.Series:
        return pl.Series([7] * len(series), dtype=pl.UInt64)

    monkeypatch.setattr(pl.Series, "hash", one)
    parts = [pl.Series(["1", "2"]), pl.Series(["2", "3"])]
    assert [*repeated_ids(lambda: parts, tmp_path)] == ["2"]
