"""Sets of customers of any size, compared in bounded memory.

Rows are split by a hash of the identifier into files of a folder, and worked on a share at a time.
A hash only says which share a row belongs to, or that an identifier may be repeated: what counts in
the end are the identifiers themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from nudgescribe.lazy import ipc, np, pa, pl

if TYPE_CHECKING:
    from nudgescribe.lazy import npt

SHARES = 256
SHARE_BITS = 56
"""A hash without them is its share. Of 20,000,000 customers each share has 80,000."""
ROWS_HELD, HASHES_HELD = 100_000, 4_000_000
"""Fewer are compared in memory at once."""
HASH = f"polars {version('polars')}"
"""The hash of `hash_ids`: other versions may have another one."""
Hashes: TypeAlias = "npt.NDArray[np.uint64]"

Change = Literal["added", "removed", "changed", "unchanged", "repeated"]


def no_ids() -> pl.Series:
    """Return identifiers of nobody."""
    return pl.Series(dtype=pl.String())


def join_hashes(parts: Iterable[Hashes]) -> Hashes:
    """Return the hashes of all parts, of which there may be none, one behind the other."""
    return np.concatenate([np.empty(0, np.uint64), *parts])


def compare(
    before: Iterable[pl.DataFrame], after: Iterable[pl.DataFrame], folder: Path
) -> Iterator[pl.DataFrame]:
    """Compare two sets of customers; yield frames that say what became of each customer.

    The frames of `before` and `after` have the columns `id` (text) and `content` (UInt64, equal if
    the customers are). The frames yielded have the columns `id`, `change` and `row`: the number of
    the customer's row in `after`, or in `before` if the customer was removed, counted from 0. If an
    identifier occurs more than once in a set, its later rows are *repeated*. Long sets need room in
    `folder` for their identifiers.
    """
    sides = [_number(before), _number(after)]
    held = [_take(side, ROWS_HELD) for side in sides]
    if not any(_height(frames) >= ROWS_HELD for frames in held):
        yield _compare(*(pl.concat([_no_rows(), *frames]) for frames in held))
        return
    folders = folder / "before", folder / "after"
    for frames, side, target in zip(held, sides, folders, strict=True):
        _split(chain(frames, side), target)
    for share in range(SHARES):
        yield _compare(*(_read(each, share) for each in folders))


def identities(ids: pl.Series) -> pl.DataFrame:
    """Return customers without content, so that `compare` looks at their identifiers only."""
    return ids.cast(pl.String).to_frame("id").with_columns(content=pl.lit(0, pl.UInt64))


def find_common(
    one: Iterable[pl.DataFrame], other: Iterable[pl.DataFrame], folder: Path
) -> pl.Series:
    """Return the identifiers that two sets of `identities` share. Memory grows with these alone;
    see `compare` for `folder`.
    """
    shares = compare(one, other, folder)
    common = (share.filter(pl.col("change") == "unchanged")["id"] for share in shares)
    return pl.concat([no_ids(), *common])


class Counts(Counter[Change]):
    """Customers by what became of them."""

    @classmethod
    def of(cls, shares: Iterable[pl.DataFrame]) -> Self:
        """Count all that `compare` yields."""
        counts = cls()
        for share in shares:
            counts.add(share)
        return counts

    def add(self, share: pl.DataFrame) -> None:
        """Count what `compare` has yielded."""
        self.update(dict(share["change"].value_counts().rows()))


def repeated_ids(parts: Callable[[], Iterable[pl.Series]], folder: Path) -> pl.Series:
    """Return the identifiers that occur more than once in a list that comes in parts, each once.

    The list is read again only if hashes of its identifiers repeat. Memory grows with the
    identifiers that repeat, and with no others. Long lists need room in `folder`: 8 bytes a row.
    """
    suspects = repeated_hashes(map(hash_ids, parts()), folder)
    if not len(suspects):
        return no_ids()
    suspected = pl.concat(ids.filter(np.isin(hash_ids(ids), suspects)) for ids in parts())
    return suspected.filter(suspected.is_duplicated()).unique()


def hash_ids(ids: pl.Series) -> Hashes:
    """Return a hash for each identifier, the same for equal ones. It depends on HASH."""
    return ids.hash().to_numpy()


def repeated_hashes(hashes: Iterable[Hashes], folder: Path) -> Hashes:
    """Return the hashes that occur more than once, each once.

    Many need room in `folder`: 8 bytes each.
    """
    return np.unique(join_hashes(map(_repeated, _hash_shares(iter(hashes), folder))))


def _number(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the frames with a column `row` ahead, counted from 0 over all of them."""
    first = 0
    for frame in frames:
        yield frame.with_row_index("row", offset=first)
        first += frame.height


def _take(frames: Iterator[pl.DataFrame], rows: int) -> list[pl.DataFrame]:
    """Return the first frames, of `rows` together, or all if they have fewer."""
    taken: list[pl.DataFrame] = []
    while _height(taken) < rows and (frame := next(frames, None)) is not None:
        taken.append(frame)
    return taken


def _height(frames: list[pl.DataFrame]) -> int:
    return sum(frame.height for frame in frames)


def _compare(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    (earlier, earlier_repeated), (later, later_repeated) = _distinct(before), _distinct(after)
    both = earlier.join(later, on="id", how="full", coalesce=True, suffix="_after")
    repeated = (
        rows.select("id", pl.lit("repeated").alias("change"), "row")
        for rows in (earlier_repeated, later_repeated)
    )
    row = pl.coalesce("row_after", "row").alias("row")
    return pl.concat([both.select("id", _change(), row), *repeated])


def _change() -> pl.Expr:
    earlier, later = pl.col("content"), pl.col("content_after")
    return (
        pl.when(earlier.is_null())
        .then(pl.lit("added"))
        .when(later.is_null())
        .then(pl.lit("removed"))
        .when(earlier != later)
        .then(pl.lit("changed"))
        .otherwise(pl.lit("unchanged"))
        .alias("change")
    )


def _split(frames: Iterable[pl.DataFrame], folder: Path) -> None:
    """Write the rows to a file for each share."""
    folder.mkdir()
    with ExitStack() as stack:
        writers: dict[int, ipc.RecordBatchStreamWriter] = {}
        for frame in frames:
            keyed = frame.with_columns(share=pl.col("id").hash() // 2**SHARE_BITS)
            parts = keyed.partition_by("share", as_dict=True, include_key=False)
            for (share,), part in parts.items():
                table = part.to_arrow()
                if share not in writers:
                    file = stack.enter_context(pa.OSFile(str(folder / str(share)), "wb"))
                    writers[share] = stack.enter_context(ipc.new_stream(file, table.schema))
                writers[share].write_table(table)


def _read(folder: Path, share: int) -> pl.DataFrame:
    file = folder / str(share)
    if not file.exists():
        return _no_rows()
    return pl.read_ipc_stream(file)


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(schema={"row": pl.UInt32, "id": pl.String, "content": pl.UInt64})


def _distinct(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the first row of each identifier, and the other rows."""
    if rows["id"].n_unique() == rows.height:
        return rows, rows.clear()
    first = rows["id"].is_first_distinct()
    return rows.filter(first), rows.filter(~first)


def _repeated(hashes: Hashes) -> Hashes:
    hashes.sort()
    return hashes[1:][hashes[1:] == hashes[:-1]]


def _hash_shares(hashes: Iterator[Hashes], folder: Path) -> Iterator[Hashes]:
    """Yield all hashes a share at a time, from memory if they are few, else from files."""
    held: list[list[Hashes]] = []
    count = 0
    for part in hashes:
        held.append(_split_hashes(part))
        count += len(part)
        if count >= HASHES_HELD:
            break
    else:
        for share in range(SHARES):
            yield join_hashes(shares[share] for shares in held)
        return
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f"{n}.hashes").open("wb")) for n in range(SHARES)]
        for shares in chain(held, map(_split_hashes, hashes)):
            for file, share in zip(files, shares, strict=True):
                file.write(share.tobytes())
    for n in range(SHARES):
        yield np.fromfile(folder / f"{n}.hashes", np.uint64)


def _split_hashes(hashes: Hashes) -> list[Hashes]:
    ordered = np.sort(hashes)
    return np.split(
        ordered, np.searchsorted(ordered >> np.uint64(SHARE_BITS), np.arange(1, SHARES))
    )
