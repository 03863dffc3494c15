"""Verify that the pages in the lake are the whole run: all there, complete, no customer twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blocks import DataLake
from blocks.storage.manifest import Batch, Page, run_folder
from blocks.storage.reader import PartUnreadable, read_tables, to_polars
from blocks.storage.scratch import scratch_folder
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import NudgeflowError, first_ten
from nudgescribe.identifiers import Hashes, hash_ids, join_hashes, repeated_hashes
from nudgescribe.lazy import np, pl
from tasks.export.download import ExportRef
from tasks.export.ledger import Entry, Ledger

ID = MESSAGE_COLUMNS[0]


class PartDamaged(NudgeflowError):
    """A part that was just written is not in the lake as a whole; its `pages` are in doubt."""

    advice = "Retry this flow run to fetch its pages again."

    def __init__(self, folder: str, batch: Batch) -> None:
        self.pages = {page.page for page in batch.pages}
        names = first_ten(part.name for part in batch.parts)
        super().__init__(f"In {folder}, {names} are not in the lake as they were written.")


def doubtful_pages(
    lake: DataLake, export: ExportRef, ledger: Ledger
) -> tuple[set[int], str | None]:
    """Return the pages to fetch again and what is wrong; no pages and None if nothing is.

    That no customer occurs twice is proved by the notes beside the batches. Parts are read back
    where a note is missing, or where hashes of identifiers repeat.
    """
    batches = ledger.batches()
    pages = [page for batch in batches for page in batch.pages]
    rows = sum(page.rows for page in pages)
    numbers = {page.page for page in pages}
    if beyond := {number for number in numbers if number >= export.pages}:
        return numbers, f"The export has {export.pages} pages now, {len(beyond)} fewer than before."
    if missing := export.pages - len(numbers):
        return set(), f"The lake lacks {missing} of the {export.pages} pages of {export.name}."
    erased = sum(page.erased for page in pages)
    # The group may have lost them, or not.
    if export.rows is not None and not rows <= export.rows <= rows + erased:
        doubtful = _short(pages) if rows < export.rows else numbers
        return doubtful, (
            f"The {len(numbers)} pages of {export.name} hold {rows:,} rows, not {export.rows:,}; "
            f"in doubt: {_listed(doubtful)}."
        )
    try:
        _check_files(lake, export, batches)
        repeated = _pages_with_repeated_ids(lake, export, ledger, batches)
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
    full = max(page.rows + page.erased for page in pages)
    last = max(page.page for page in pages)
    return {page.page for page in pages if page.rows + page.erased < full} | {last}


def _check_files(lake: DataLake, export: ExportRef, batches: list[Entry]) -> None:
    """Raise PartDamaged if a part, whose content was proved when it was written, is not there or is
    not as long as then.
    """
    folder = run_folder(export.campaign_id, export.run_number)
    sizes = {file.path: file.bytes for file in lake.files.list_files(folder)}
    for batch in batches:
        if any(sizes.get(f"{folder}/{part.name}") != part.bytes for part in batch.parts):
            raise PartDamaged(folder, batch)


def _pages_with_repeated_ids(
    lake: DataLake, export: ExportRef, ledger: Ledger, batches: list[Entry]
) -> set[int]:
    def hashes(batch: Entry) -> Hashes:
        noted = ledger.hashes(batch)
        if noted is not None and len(noted) == _rows(batch):
            return noted
        read = (hash_ids(ids) for _, ids in customer_ids(lake, export, [batch]))
        return join_hashes(read)

    with scratch_folder("the verification of an export") as folder:
        suspects = repeated_hashes(map(hashes, batches), folder)
    if not len(suspects):
        return set()
    suspected = [batch for batch in batches if np.isin(hashes(batch), suspects).any()]
    return _pages_of_repeated(customer_ids(lake, export, suspected), suspects)


def _pages_of_repeated(rows: Iterator[tuple[pl.Series, pl.Series]], suspects: Hashes) -> set[int]:
    """Return the pages of the rows whose identifiers, not only their hashes, are repeated."""
    found = pl.concat(
        pl.DataFrame({"page": pages, "id": ids}).filter(np.isin(hash_ids(ids), suspects))
        for pages, ids in rows
    )
    return {*found.filter(found["id"].is_duplicated())["page"]}


def _rows(batch: Batch) -> int:
    return sum(page.rows for page in batch.pages)


def customer_ids(
    lake: DataLake, export: ExportRef, batches: Sequence[Batch]
) -> Iterator[tuple[pl.Series, pl.Series]]:
    """Yield two series of equal length: the customers' pages and their identifiers.

    Raises PartDamaged.
    """
    folder = run_folder(export.campaign_id, export.run_number)
    for batch in batches:
        row, end = 0, _rows(batch)
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
