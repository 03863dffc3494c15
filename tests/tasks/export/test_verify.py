"""The proof that a run is whole: which pages are in doubt, and why."""

from pathlib import Path

import pytest

from blocks import DataLake
from blocks.storage.manifest import Batch
from blocks.storage.part_writer import PartWriter
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
    lake: DataLake, pages: list[list[str]], batch_pages: int = 3, part_bytes: int = 100
) -> list[Batch]:
    """Batches of several pages, in parts that begin and end anywhere in a page."""
    batches: list[Batch | None] = []
    with PartWriter(lake.files, FOLDER, "w", lake.format, part_bytes=part_bytes) as writer:
        for number, ids in enumerate(pages):
            write_page(writer, number, page(ids), 500)
            if number % batch_pages == batch_pages - 1:
                batches.append(writer.finish())
        batches.append(writer.finish())
    return [batch for batch in batches if batch]


def judged(
    lake: DataLake, batches: list[Batch], pages: int, rows: int | None = None
) -> tuple[set[int], str | None]:
    return doubtful_pages(lake, export_ref(pages, rows), batches)


@pytest.fixture(params=["csv", "csv.zst", "parquet"])
def lake(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> DataLake:
    monkeypatch.setattr("blocks.storage.part_writer.ROW_GROUP_BYTES", 1)
    monkeypatch.setattr("blocks.storage.reader.ROWS_AT_ONCE", 7)
    return DataLake(root=str(tmp_path / "lake"), format=request.param)


def test_verification_finds_repeated_customers_anywhere(lake: DataLake) -> None:
    pages = pages_of(8)
    batches = written(lake, pages)
    assert len(batches) == 3
    assert lake.format == "csv.zst" or len(batches[0].parts) > 3
    assert judged(lake, batches, 8, 8 * ROWS) == (set(), None)
    pages[7][ROWS - 1] = pages[0][0]  # the first and the last of all
    pages[3][5] = pages[3][30]  # twice in a page
    pages[4][0] = pages[5][0] = pages[1][-1]  # three times
    doubtful, problem = judged(lake, written(lake, pages), 8, 8 * ROWS)
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


def test_verification_doubts_pages_of_damaged_part(lake: DataLake) -> None:
    batches = written(lake, pages_of(6))
    assert judged(lake, batches, 6) == (set(), None)
    part = Path(lake.root) / FOLDER / batches[1].parts[0].name
    part.write_bytes(part.read_bytes()[:-20])
    doubtful, problem = judged(lake, batches, 6)
    assert doubtful == {3, 4, 5}
    assert str(problem).endswith("cannot be read back whole.")
    assert part.name in str(problem)
