"""The ledger of an export: the batches of pages that are in the lake already."""

import re
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from blocks.storage.errors import Damaged
from blocks.storage.files import Files
from blocks.storage.manifest import Batch

_BATCH = re.compile(r"(\d+)-(\d+)\.json")


class LedgerDamaged(Damaged):
    """A file of an export's ledger cannot be read."""

    advice = "Remove it and retry this flow run: the pages are fetched again."


class Ledger:
    """A staging folder with one file for each batch of pages that is in the lake as a whole.

    A file is named after the batch's first and last page, so its pages are known without reading.
    """

    def __init__(self, files: Files, staging: str) -> None:
        self._files = files
        self._folder = f"{staging}/pages"

    def add(self, batch: Batch) -> None:
        """Enter a batch whose parts are in the lake."""
        name = f"{batch.pages[0].page:05d}-{batch.pages[-1].page:05d}.json"
        content = batch.model_dump_json().encode()
        self._files.write(f"{self._folder}/{name}", content, private=True)

    def batches(self, pages: Sequence[int] | None = None) -> list[Batch]:
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

    def _read(self, path: str) -> Batch:
        try:
            return Batch.model_validate_json(self._files.read(path))
        except ValidationError:
            raise LedgerDamaged.at(path) from None

    def _entries(self) -> Iterator[tuple[str, range]]:
        """Yield the batches' files and pages, in the order of the first; other files are passed
        over.
        """
        names = map(_BATCH.fullmatch, self._files.list_names(self._folder))
        for name in sorted((name for name in names if name), key=lambda name: int(name[1])):
            yield f"{self._folder}/{name[0]}", range(int(name[1]), int(name[2]) + 1)
