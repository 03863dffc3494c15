"""What an export has brought into the lake so far, noted where its next try finds it."""

from blocks.files import Files
from blocks.manifest import Batch


class Ledger:
    """A folder of the lake with a file for each batch of pages that is there as a whole."""

    def __init__(self, files: Files, staging: str) -> None:
        self._files = files
        self._folder = f"{staging}/pages"

    def add(self, batch: Batch) -> None:
        content = batch.model_dump_json().encode()
        self._files.write(self._path(batch), content, private=True)

    def batches(self) -> list[Batch]:
        """In the order of their pages."""
        paths = (f"{self._folder}/{name}" for name in self._files.names(self._folder))
        found = [Batch.model_validate_json(self._files.read(path)) for path in paths]
        return sorted(found, key=lambda batch: batch.pages[0].page)

    def pages(self) -> set[int]:
        return {page.page for batch in self.batches() for page in batch.pages}

    def forget(self, pages: set[int]) -> None:
        """Has the batches that hold one of these pages fetched again."""
        for batch in self.batches():
            if pages & {page.page for page in batch.pages}:
                self._files.remove(self._path(batch))

    def clear(self) -> None:
        self._files.remove(self._folder)

    def _path(self, batch: Batch) -> str:
        return f"{self._folder}/{batch.pages[0].page:05d}.json"
