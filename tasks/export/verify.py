"""Verify that the pages in the lake are the whole run: all there, complete, no customer twice."""

from __future__ import annotations

from collections.abc import Iterator

from blocks import DataLake
from blocks.storage.manifest import Batch, Page, run_folder
from blocks.storage.reader import PartUnreadable, read_tables, to_polars
from blocks.storage.scratch import scratch_folder
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import NudgeflowError, first_ten
from nudgescribe.identifiers import repeated_ids
from nudgescribe.lazy import np, pl
from tasks.export.download import ExportRef

ID = MESSAGE_COLUMNS[0]


class PartDamaged(NudgeflowError):
    """A part that was just written cannot be read back; its `pages` are in doubt."""

    advice = "Retry this flow run to fetch its pages again."

    def __init__(self, folder: str, batch: Batch) -> None:
        self.pages = {page.page for page in batch.pages}
        names = first_ten(part.name for part in batch.parts)
        super().__init__(f"In {folder}, {names} cannot be read back whole.")


def doubtful_pages(
    lake: DataLake, export: ExportRef, batches: list[Batch]
) -> tuple[set[int], str | None]:
    """Return the pages to fetch again and what is wrong; no pages and None if nothing is.

    The customers' identifiers are read back from the lake, which proves that its files are
    readable.
    """
    pages = [page for batch in batches for page in batch.pages]
    rows = sum(page.rows for page in pages)
    numbers = {page.page for page in pages}
    if beyond := {number for number in numbers if number >= export.pages}:
        return numbers, f"The export has {export.pages} pages now, {len(beyond)} fewer than before."
    if missing := export.pages - len(numbers):
        return set(), f"The lake lacks {missing} of the {export.pages} pages of {export.name}."
    if export.rows is not None and rows != export.rows:
        doubtful = _short(pages) if rows < export.rows else numbers
        return doubtful, (
            f"The {len(numbers)} pages of {export.name} hold {rows:,} rows, not {export.rows:,}; "
            f"in doubt: {_listed(doubtful)}."
        )
    try:
        repeated = _pages_with_repeated_ids(lake, export, batches)
    except PartDamaged as error:
        return error.pages, error.problem
    if repeated:
        return repeated, (
            f"Customers occur more than once in {export.name}, in {_listed(repeated)}."
        )
    return set(), None


def _listed(pages: set[int]) -> str:
    return f"page {first_ten(sorted(pages))}"


def _short(pages: list[Page]) -> set[int]:
    """Return the pages with fewer rows than a full one, and the last one: it may have grown."""
    full = max(page.rows for page in pages)
    last = max(page.page for page in pages)
    return {page.page for page in pages if page.rows < full} | {last}


def _pages_with_repeated_ids(lake: DataLake, export: ExportRef, batches: list[Batch]) -> set[int]:
    def read_ids() -> Iterator[tuple[pl.Series, pl.Series]]:
        return customer_ids(lake, export, batches)

    with scratch_folder("the verification of an export") as folder:
        repeated = repeated_ids(lambda: (ids for _, ids in read_ids()), folder)
    if repeated.is_empty():
        return set()
    wanted = repeated.implode()
    return {page for pages, ids in read_ids() for page in pages.filter(ids.is_in(wanted))}


def customer_ids(
    lake: DataLake, export: ExportRef, batches: list[Batch]
) -> Iterator[tuple[pl.Series, pl.Series]]:
    """Yield two series of equal length: the customers' pages and their identifiers.

    Raises PartDamaged.
    """
    folder = run_folder(export.campaign_id, export.run_number)
    for batch in batches:
        row, end = 0, sum(page.rows for page in batch.pages)
        try:
            for _, table in read_tables(lake.files, folder, batch.parts, lake.format, [ID]):
                ids = to_polars(table)[ID]
                yield _pages_of(batch, row, len(ids)), ids
                row += len(ids)
        except PartUnreadable:
            raise PartDamaged(folder, batch) from None
        if row != end:
            raise PartDamaged(folder, batch)


def _pages_of(batch: Batch, first: int, rows: int) -> pl.Series:
    """Return the page of each row; rows beyond the last page count as rows of that page."""
    pages, sizes = ([getattr(page, name) for page in batch.pages] for name in ("page", "rows"))
    of = np.searchsorted(np.cumsum(sizes), np.arange(first, first + rows), side="right")
    return pl.Series(np.array(pages)[np.minimum(of, len(pages) - 1)])
