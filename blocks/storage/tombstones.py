"""The tombstones of the lake: keyed hashes of the customers who were erased from it.

Each erasure adds a Parquet file, which is never changed. They keep exports from bringing the
customers back, and tell nobody without the key, which is not in the lake, who they were.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from pydantic import ValidationError

from blocks.storage.errors import Damaged, NotInLake
from blocks.storage.files import AlreadyThere, Files
from blocks.storage.parquet import ParquetSink
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError
from nudgescribe.lazy import pl

TOMBSTONES = "tombstones"
SCHEMA_VERSION = 1
_KEY = f"{TOMBSTONES}/key.json"
_PROOF = b"nudgeflow tombstones"
_HASH = "hash"


class ErasureKeyWrong(NudgeflowError):
    """The lake block lacks the key of the lake's tombstones, or has another one."""

    advice = (
        "Nothing was changed. Set erasure_key in the lake block to the key that the first erasure "
        "was made with: without it erased customers cannot be told, and would come back."
    )


class TombstonesDamaged(Damaged):
    """A file of the lake's tombstones cannot be read."""

    advice = "Restore it from a backup: without it erased customers would come back."


class _KeyProof(Frozen):
    """Tells a key from another one, and nothing else of it."""

    schema_version: int = SCHEMA_VERSION
    proof: str


class Tombstones:
    """The customers who were erased, by the hashes of their identifiers."""

    def __init__(self, key: bytes, hashes: frozenset[bytes]) -> None:
        self._key = key
        self._hashes = hashes

    def find(self, ids: pl.Series) -> pl.Series:
        """Return of each identifier whether its customer was erased."""
        key, hashes = self._key, self._hashes
        erased = (id_ is not None and _hash(key, id_) in hashes for id_ in ids)
        return pl.Series(erased, dtype=pl.Boolean)


def leave_out_erased(
    tombstones: Tombstones | None, frames: Iterable[pl.DataFrame], column: str
) -> Iterator[pl.DataFrame]:
    """Yield the frames without the rows of customers who were erased."""
    for frame in frames:
        yield frame.filter(~tombstones.find(frame[column])) if tombstones else frame


def load_tombstones(files: Files, read_key: Callable[[], bytes | None]) -> Tombstones | None:
    """Return the lake's tombstones; None if there are none, and then no key is needed.

    Raises ErasureKeyWrong, TombstonesDamaged.
    """
    names = files.list_names(TOMBSTONES)
    if not names:
        return None
    key = read_key()
    if key is None:
        raise ErasureKeyWrong("The lake has tombstones, and its block no erasure_key.")
    _check_key(files, key)
    paths = [f"{TOMBSTONES}/{name}" for name in names if name.endswith(".parquet")]
    return Tombstones(key, frozenset[bytes]().union(*(_read(files, path) for path in paths)))


def write_tombstones(files: Files, key: bytes, name: str, ids: Iterable[pl.Series]) -> None:
    """Write the tombstones of an erasure, replacing those of an earlier try of it.

    Raises ErasureKeyWrong if the lake has those of another key.
    """
    with suppress(AlreadyThere):
        files.create(_KEY, _KeyProof(proof=_proof(key)).model_dump_json().encode())
    _check_key(files, key)
    schema = pl.Schema({_HASH: pl.Binary()})
    with (
        files.new_file(f"{TOMBSTONES}/{name}.parquet") as file,
        ParquetSink(file, schema) as sink,
    ):
        for some in ids:
            # Sorted, so that their order tells nothing of the list's.
            hashes = sorted({_hash(key, id_) for id_ in some})
            sink.write(pl.DataFrame({_HASH: hashes}, schema=schema))


def _check_key(files: Files, key: bytes) -> None:
    try:
        proof = _KeyProof.model_validate_json(files.read(_KEY)).proof
    except (NotInLake, ValidationError):
        raise TombstonesDamaged.at(_KEY) from None
    if not hmac.compare_digest(proof, _proof(key)):
        raise ErasureKeyWrong("The lake's tombstones have another key than its block.")


def _read(files: Files, path: str) -> frozenset[bytes]:
    content = files.read(path)
    try:
        return frozenset(pl.read_parquet(content, columns=[_HASH])[_HASH])
    except pl.exceptions.PolarsError:
        raise TombstonesDamaged.at(path) from None


def _proof(key: bytes) -> str:
    return hmac.digest(key, _PROOF, "sha256").hex()


def _hash(key: bytes, id_: str) -> bytes:
    return hmac.digest(key, id_.encode(), "sha256")
