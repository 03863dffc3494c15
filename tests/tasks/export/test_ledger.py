"""The ledger of an export, whatever else lies beside its entries."""

import json
from pathlib import Path

import numpy as np
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
    assert [batch.pages for batch in ledger.batches()] == [pages]
    ledger.forget({3})
    assert ledger.pages() == set()
    assert files.exists(f"staging/R/pages/{foreign}")


def noted(files: Files) -> tuple[Ledger, Path]:
    """A ledger with a batch of three rows, and the file of its note."""
    ledger = Ledger(files, "staging/R")
    pages = [Page(page=number, rows=1, bytes=1) for number in (2, 3, 4)]
    ledger.add(Batch(pages=pages, parts=[]), np.array([3, 1, 2**64 - 1], np.uint64))
    return ledger, Path(files.root, "staging/R/pages/00002-00004.ids")


def test_note_is_read_back_in_the_order_of_rows(tmp_path: Path) -> None:
    ledger, note = noted(Files(str(tmp_path), {}))
    (entry,) = ledger.batches()
    hashes = ledger.hashes(entry)
    assert hashes is not None
    assert hashes.tolist() == [3, 1, 2**64 - 1]
    assert note.stat().st_size == 24


@pytest.mark.parametrize("damage", ["missing", "shorter", "changed", "another hash", "none"])
def test_note_that_proves_nothing_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    ledger, note = noted(Files(str(tmp_path), {}))
    content = note.read_bytes()
    match damage:
        case "missing":
            note.unlink()
        case "shorter":
            note.write_bytes(content[:8])
        case "changed":
            note.write_bytes(content[8:] + content[:8])
        case "another hash":
            monkeypatch.setattr("tasks.export.ledger.HASH", "of another version")
        case _:  # as the version before entered it
            entry = note.with_suffix(".json")
            old = json.loads(entry.read_text())
            assert old.pop("note")
            entry.write_text(json.dumps(old))
    assert [ledger.hashes(entry) for entry in ledger.batches()] == [None]


def test_damaged_batch_is_told(tmp_path: Path) -> None:
    files = Files(str(tmp_path), {})
    files.write("staging/R/pages/00000-00001.json", b"")
    with pytest.raises(LedgerDamaged, match="staging/R/pages/00000-00001.json is empty"):
        Ledger(files, "staging/R").batches()
