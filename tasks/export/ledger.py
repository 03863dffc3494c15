"""The ledger of an export: the batches of pages that are in the lake already, each with a note of
its customers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256

from pydantic import ValidationError

from blocks.storage.errors import Damaged
from blocks.storage.files import Files, NotInLake
from blocks.storage.manifest import Batch
from nudgescribe.bases import Frozen
from nudgescribe.identifiers import HASH, Hashes
from nudgescribe.lazy import np

_BATCH = re.compile(r"(\d+)-(\d+)\.json")


class LedgerDamaged(Damaged):
    """A file of an export's ledger cannot be read."""

    advice = "Remove it and retry this flow run: the pages are fetched again."


class Note(Frozen):
    """The file with the hashes of a batch's identifiers, 8 bytes for each row, in their order.

    `hash` names the hash, `sha256` is the file's.
    """

    hash: str
    sha256: str


class Entry(Batch):
    """A batch that is in the lake as a whole. Those of earlier versions have no `note`."""

    note: Note | None = None


class Ledger:
    """A staging folder with one file for each batch of pages that is in the lake as a whole.

    A file is named after the batch's first and last page, so its pages are known without reading.
    Its note has the same name.
    """

    def __init__(self, files: Files, staging: str) -> None:
        self._files = files
        self._folder = f"{staging}/pages"

    def add(self, batch: Batch, hashes: Hashes | None = None) -> None:
        """Enter a batch whose parts are in the lake, with the hashes of its identifiers."""
        note, name = None, _name(batch)
        if hashes is not None:
            content = hashes.astype("<u8").tobytes()
            note = Note(hash=HASH, sha256=sha256(content).hexdigest())
            self._files.write(f"{self._folder}/{name}.ids", content, private=True)
        entry = Entry(pages=batch.pages, parts=batch.parts, note=note)
        content = entry.model_dump_json().encode()
        self._files.write(f"{self._folder}/{name}.json", content, private=True)

    def hashes(self, entry: Entry) -> Hashes | None:
        """Return the hashes of a batch's identifiers in the order of its rows; None if they are not
        there, damaged, or those of another hash than this process has.
        """
        if entry.note is None or entry.note.hash != HASH:
            return None
        try:
            content = self._files.read(f"{self._folder}/{_name(entry)}.ids")
        except NotInLake:
            return None
        if sha256(content).hexdigest() != entry.note.sha256:
            return None
        return np.frombuffer(content, "<u8").astype(np.uint64, copy=False)

    def batches(self, pages: Sequence[int] | None = None) -> list[Entry]:
        """Return the batches in the order of their pages; with `pages`, those that hold any.

        Raises LedgerDamaged.
        """
        return [
            self._read(path)
            for path, held in self._entries()
            if pages is None or any(page in held for page in pages)
        ]

    def pages(self) -> set[int]:
        """Return the numbers of the pages that are in the lake."""
        return {page for _, held in self._entries() for page in held}

    def forget(self, pages: set[int]) -> None:
        """Remove the batches that hold any of these pages, so that they are fetched again."""
        for path, held in self._entries():
            if pages & {*held}:
                self._files.remove(path)

    def clear(self) -> None:
        """Remove all batches, so that every page is fetched again."""
        self._files.remove(self._folder)

    def _read(self, path: str) -> Entry:
        try:
            return Entry.model_validate_json(self._files.read(path))
        except ValidationError:
            raise LedgerDamaged.at(path) from None

    def _entries(self) -> Iterator[tuple[str, range]]:
        """Yield the batches' files and pages, in the order of the first; other files are passed
        over.
        """
        names = map(_BATCH.fullmatch, self._files.list_names(self._folder))
        for name in sorted((name for name in names if name), key=lambda name: int(name[1])):
            yield f"{self._folder}/{name[0]}", range(int(name[1]), int(name[2]) + 1)


def _name(batch: Batch) -> str:
    return f"{batch.pages[0].page:05d}-{batch.pages[-1].page:05d}"
