"""Entries of a journal: created once, never changed, and read whatever else lies beside them."""

import json
import re
from pathlib import Path

import pytest

from blocks.storage.errors import StoreUnusable, TooNew
from blocks.storage.files import Files
from nudgescribe.bases import Frozen
from tasks.journal.entries import Journal, JournalDamaged, Series, Step, TakenOver, damage
from tasks.journal.owners import Owner

FOLDER = "refreshes/campaign_id=C/00000001"


class Note(Frozen):
    text: str
    more: int = 0


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Files(str(tmp_path), {}), FOLDER)


def test_step_is_done_once_and_remembered(journal: Journal) -> None:
    done: list[str] = []

    def work() -> Note:
        done.append("done")
        return Note(text="a", more=3)

    assert journal.step(Step.FOUND, Note, work) == journal.step(Step.FOUND, Note, work)
    assert done == ["done"]
    assert journal.find(Step.VALIDATED, Note) is None


def test_store_that_cannot_be_used_is_no_damage() -> None:
    with pytest.raises(StoreUnusable, match="no such bucket"), damage(FOLDER):
        raise StoreUnusable("There is no such bucket.")


def test_entry_that_is_there_stays(journal: Journal) -> None:
    assert journal.create(Step.FOUND, Note(text="first"))
    assert not journal.create(Step.FOUND, Note(text="second"))
    assert journal.add(Step.FOUND, Note(text="second")) == Note(text="first")


def test_entry_that_is_newest_of_a_series_counts(journal: Journal) -> None:
    assert journal.newest(Series.PROBLEM, Note) == (0, None)
    for number in range(1, 13):
        assert journal.append(Series.PROBLEM, number, Note(text=str(number)))
    assert not journal.append(Series.PROBLEM, 12, Note(text="late"))
    assert journal.newest(Series.PROBLEM, Note) == (12, Note(text="12"))
    assert journal.newest(Series.OWNER, Note) == (0, None)


def test_entry_tells_who_wrote_it(journal: Journal, tmp_path: Path) -> None:
    journal.create(Step.FOUND, Note(text="a"))
    written = json.loads((tmp_path / FOLDER / "01-found.json").read_text())
    assert written.keys() == {"project", "schema_version", "written_at", "content"}
    assert re.fullmatch(r"nudgeflow \d.*", written["project"])
    assert (written["schema_version"], written["content"]) == (2, {"text": "a"})


def test_file_that_is_no_entry_is_passed_over(journal: Journal, tmp_path: Path) -> None:
    journal.create(Step.FOUND, Note(text="a"))
    for name in ("notes.txt", ".DS_Store", "01-found.json.bak", "owner-1.json", "10-later.json"):
        (tmp_path / FOLDER / name).write_text("x")
    (tmp_path / FOLDER / "owner-0001").mkdir()
    contents = journal.contents()
    assert (contents.steps, contents.newest) == ({Step.FOUND}, {})


@pytest.mark.parametrize("content", [b"", b'{"project": "nudge', b"[]", b"\x00\xff", b"{}"])
def test_damaged_entry_is_named(journal: Journal, tmp_path: Path, content: bytes) -> None:
    journal.create(Step.FOUND, Note(text="secret"))
    (tmp_path / FOLDER / "01-found.json").write_bytes(content)
    with pytest.raises(JournalDamaged, match=r"00000001/01-found\.json.*abandon-refresh"):
        journal.find(Step.FOUND, Note)


def test_entry_of_another_kind_is_named_without_its_values(journal: Journal) -> None:
    journal.create(Step.FOUND, Note(text="ada@example.com"))
    with pytest.raises(JournalDamaged, match="01-found.json does not hold") as caught:
        journal.find(Step.FOUND, Owner)
    assert "ada" not in str(caught.value)


def test_entry_of_a_later_version_is_refused(journal: Journal, tmp_path: Path) -> None:
    journal.create(Step.FOUND, Note(text="a"))
    file = tmp_path / FOLDER / "01-found.json"
    later = {**json.loads(file.read_text()), "schema_version": 3, "project": "nudgeflow 9.0"}
    file.write_text(json.dumps({**later, "a new field": 1}))
    with pytest.raises(TooNew, match=r"nudgeflow 9\.0 in version 3.*update"):
        journal.find(Step.FOUND, Note)


def test_step_stops_once_the_journal_has_ended(journal: Journal) -> None:
    journal.create(Step.ENDED, Note(text="by a person"))
    with pytest.raises(TakenOver, match="has been ended"):
        journal.step(Step.FOUND, Note, lambda: pytest.fail("it works on"))
