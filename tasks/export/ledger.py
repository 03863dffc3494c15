"""What an export has brought into the lake so far, noted where its next try finds it."""

from collections.abc import Iterator, Sequence

from blocks.storage.files import Files
from blocks.storage.manifest import Batch


class Ledger:
    """A folder of the lake with a file for each batch of pages that is there as a whole.

    Its name is that of the first and the last page, so that it need not be read to know them.
    """

    def __init__(self, files: Files, staging: str) -> None:
        self._files = files
        self._folder = f"{staging}/pages"

    def add(self, batch: Batch) -> None:
        name = f"{batch.pages[0].page:05d}-{batch.pages[-1].page:05d}.json"
        content = batch.model_dump_json().encode()
        self._files.write(f"{self._folder}/{name}", content, private=True)

    def batches(self, pages: Sequence[int] | None = None) -> list[Batch]:
        """In the order of their pages; those that hold one of `pages`, if they are given."""
        return [
            Batch.model_validate_json(self._files.read(path))
            for path, held in self._noted()
            if pages is None or any(page in held for page in pages)
        ]

    def pages(self) -> set[int]:
        return {page for _, held in self._noted() for page in held}

    def forget(self, pages: set[int]) -> None:
        """Has the batches that hold one of these pages fetched again."""
        for path, held in self._noted():
            if pages & {*held}:
                self._files.remove(path)

    def clear(self) -> None:
        self._files.remove(self._folder)

    def _noted(self) -> Iterator[tuple[str, range]]:
        for name in sorted(self._files.list_names(self._folder), key=_first):
            last = name.removesuffix(".json").partition("-")[2]
            yield f"{self._folder}/{name}", range(_first(name), int(last) + 1)


def _first(name: str) -> int:
    return int(name.partition("-")[0])
