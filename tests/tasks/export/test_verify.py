"""The proof that a run is whole: which pages are in doubt, and why."""

from pathlib import Path

import polars as pl
import pytest

from blocks import DataLake
from blocks.storage.manifest import Batch
from blocks.storage.part_writer import PartWriter
from nudgescribe.identifiers import Hashes, hash_ids
from tasks.export.ledger import Ledger
from tasks.export.verify import doubtful_pages
from tests.support.exports import page
from tests.support.lakes import write_page
from tests.tasks.export.conftest import FOLDER, export_ref

ROWS = 40
"""Of a page."""


def pages_of(count: int) -> list[list[str]]:
    """Customers of so many pages, each once."""
    return [[f"{number:03}-{row:03}" for row in range(ROWS)] for number in range(count)]


def written(
    lake: DataLake,
    pages: list[list[str]],
    batch_pages: int = 3,
    part_bytes: int = 100,
    noted: bool = True,
) -> Ledger:
    """The ledger of batches of several pages, in parts that begin and end anywhere in a page;
    the version before has not noted their customers.
    """
    ledger = Ledger(lake.files, "staging/w")
    ledger.clear()

    def add(batch: Batch | None) -> None:
        if batch:
            ids = [one for page in batch.pages for one in pages[page.page]]
            hashes = hash_ids(pl.Series(ids, dtype=pl.String))
            ledger.add(batch, hashes if noted else None)

    with PartWriter(lake.files, FOLDER, "w", lake.format, part_bytes=part_bytes) as writer:
        for number, ids in enumerate(pages):
            write_page(writer, number, page(ids), 500)
            if number % batch_pages == batch_pages - 1:
                add(writer.finish())
        add(writer.finish())
    return ledger


def judged(
    lake: DataLake, ledger: Ledger, pages: int, rows: int | None = None
) -> tuple[set[int], str | None]:
    return doubtful_pages(lake, export_ref(pages, rows), ledger)


@pytest.fixture(params=["csv", "csv.zst", "parquet"])
def lake(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> DataLake:
    monkeypatch.setattr("blocks.storage.part_writer.ROW_GROUP_BYTES", 1)
    monkeypatch.setattr("blocks.storage.reader.ROWS_AT_ONCE", 7)
    return DataLake(root=str(tmp_path / "lake"), format=request.param)


@pytest.mark.parametrize("noted", [True, False])
def test_verification_finds_repeated_customers_anywhere(lake: DataLake, noted: bool) -> None:
    pages = pages_of(8)
    ledger = written(lake, pages, noted=noted)
    batches = ledger.batches()
    assert len(batches) == 3
    assert lake.format == "csv.zst" or len(batches[0].parts) > 3
    assert judged(lake, ledger, 8, 8 * ROWS) == (set(), None)
    pages[7][ROWS - 1] = pages[0][0]  # the first and the last of all
    pages[3][5] = pages[3][30]  # twice in a page
    pages[4][0] = pages[5][0] = pages[1][-1]  # three times
    doubtful, problem = judged(lake, written(lake, pages, noted=noted), 8, 8 * ROWS)
    assert doubtful == {0, 1, 3, 4, 5, 7}
    assert problem == (
        "Customers occur more than once in run 2 of campaign C, in page 0, 1, 3, 4, 5, 7."
    )


def test_verification_tells_similar_customers_apart(lake: DataLake) -> None:
    alike = ["1", "01", "1.0", " 1", "1 ", "", "é", "e\u0301", "E", "NA", "na", "\ufeff1", "1\0"]
    assert judged(lake, written(lake, [alike, ["1\r\n", "1\n"]]), 2, 15) == (set(), None)
    assert judged(lake, written(lake, [alike, ["", "1\n"]]), 2, 15)[0] == {0, 1}


def test_verification_accepts_run_without_rows(lake: DataLake) -> None:
    assert judged(lake, written(lake, [[], []]), 2, 0) == (set(), None)
    assert judged(lake, written(lake, [[], []]), 2) == (set(), None)


def test_verification_doubts_short_pages_when_rows_are_missing(lake: DataLake) -> None:
    pages = pages_of(5)
    del pages[1][7:], pages[2][:1]
    doubtful, problem = judged(lake, written(lake, pages), 5, 5 * ROWS)
    assert doubtful == {1, 2, 4}  # the last one may have grown
    assert problem == (
        "The 5 pages of run 2 of campaign C hold 166 rows, not 200; in doubt: page 1, 2, 4."
    )


def test_verification_doubts_all_pages_with_too_many_rows(lake: DataLake) -> None:
    doubtful, problem = judged(lake, written(lake, pages_of(12)), 12, 1)
    assert doubtful == set(range(12))
    assert problem is not None
    assert problem.endswith(
        "hold 480 rows, not 1; in doubt: page 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more."
    )


def test_verification_doubts_all_pages_beyond_the_last(lake: DataLake) -> None:
    doubtful, problem = judged(lake, written(lake, pages_of(3)), 1, 3 * ROWS)
    assert doubtful == {0, 1, 2}
    assert problem == "The export has 1 pages now, 2 fewer than before."


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("damage", ["cut off", "missing", "longer"])
def test_verification_doubts_pages_of_damaged_part(
    lake: DataLake, noted: bool, damage: str
) -> None:
    ledger = written(lake, pages_of(6), noted=noted)
    assert judged(lake, ledger, 6) == (set(), None)
    part = Path(lake.root) / FOLDER / ledger.batches()[1].parts[0].name
    content = part.read_bytes()
    part.unlink()
    if damage != "missing":
        part.write_bytes(content[:-20] if damage == "cut off" else content + b"\n")
    doubtful, problem = judged(lake, ledger, 6)
    assert doubtful == {3, 4, 5}
    assert str(problem).endswith("not in the lake as they were written.")
    assert part.name in str(problem)


def test_verification_reads_parts_back_that_have_no_note(lake: DataLake) -> None:
    """Their content was not proved when it was written."""
    ledger = written(lake, pages_of(6), part_bytes=10**6, noted=False)
    part = Path(lake.root) / FOLDER / ledger.batches()[1].parts[0].name
    part.write_bytes(bytes(part.stat().st_size))
    doubtful, problem = judged(lake, ledger, 6)
    assert doubtful == {3, 4, 5}
    assert part.name in str(problem)


def test_verification_reads_back_the_batch_whose_note_is_damaged(lake: DataLake) -> None:
    pages = pages_of(6)
    pages[4][7] = pages[0][0]
    ledger = written(lake, pages)
    note = Path(lake.root) / "staging/w/pages/00003-00005.ids"
    note.write_bytes(note.read_bytes()[::-1])
    assert judged(lake, ledger, 6)[0] == {0, 4}


def test_verification_settles_collision_of_hashes_on_identifiers(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_letter(ids: pl.Series) -> Hashes:
        return ids.str.head(1).hash().to_numpy()

    for module in (__name__, "tasks.export.verify"):
        monkeypatch.setattr(f"{module}.hash_ids", first_letter)
    assert judged(lake, written(lake, [["a1", "b1"], ["a2"], ["a3"]], 1), 3) == (set(), None)
    assert judged(lake, written(lake, [["a1", "b1"], ["a2"], ["a1"]], 1), 3)[0] == {0, 2}


def test_verification_reads_no_part_that_was_proved(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = written(lake, pages_of(6))
    monkeypatch.setattr("tasks.export.verify.read_tables", None)
    assert judged(lake, ledger, 6, 6 * ROWS) == (set(), None)
