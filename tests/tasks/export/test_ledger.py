"""The ledger of an export, whatever else lies beside its entries."""

from pathlib import Path

import pytest

from blocks.storage.files import Files
from blocks.storage.manifest import Batch, Page
from tasks.export.ledger import Ledger, LedgerDamaged


@pytest.mark.parametrize("foreign", [".DS_Store", "notes.txt", "00000-00001.json.bak", "@eaDir/x"])
def test_foreign_file_is_no_batch(tmp_path: Path, foreign: str) -> None:
    files = Files(str(tmp_path), {})
    ledger = Ledger(files, "staging/R")
    pages = [Page(page=number, rows=1, bytes=1) for number in (2, 3)]
    ledger.add(Batch(pages=pages, parts=[]))
    files.write(f"staging/R/pages/{foreign}", b"")
    assert ledger.pages() == {2, 3}
    assert ledger.batches() == [Batch(pages=pages, parts=[])]
    ledger.forget({3})
    assert ledger.pages() == set()
    assert files.exists(f"staging/R/pages/{foreign}")


def test_damaged_batch_is_told(tmp_path: Path) -> None:
    files = Files(str(tmp_path), {})
    files.write("staging/R/pages/00000-00001.json", b"")
    with pytest.raises(LedgerDamaged, match="staging/R/pages/00000-00001.json is empty"):
        Ledger(files, "staging/R").batches()
