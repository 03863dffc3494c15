"""The pointer to a campaign's newest run, for engines outside."""

from pathlib import Path

import pytest

from blocks import DataLake
from blocks.storage import reader
from blocks.storage.files import Files
from blocks.storage.manifest import Latest
from tasks.export import run
from tests.support.lakes import write_run

POINTER = "messages/campaign_id=C/_latest.json"


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    """A lake with two runs of a campaign."""
    lake = DataLake(root=str(tmp_path / "lake"))
    for number in (1, 2):
        write_run(lake, "C", number, {"1": f"run {number}"})
    return lake


def pointed(lake: DataLake) -> Latest:
    return Latest.model_validate_json(lake.files.read(POINTER))


@pytest.mark.parametrize("content", [b"", b"{", b'{"run_number": 1, "manifest": "x"}', None])
def test_pointer_is_made_anew(lake: DataLake, content: bytes | None) -> None:
    lake.files.remove(POINTER)
    if content is not None:
        lake.files.write(POINTER, content)
    run.update_pointer(lake.files, "C")
    assert pointed(lake) == Latest(run_number=2, manifest="run_number=2/_manifest-00000.json")


def test_pointer_never_stays_on_an_older_run(
    lake: DataLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh ends with run 3 when a fill of old runs has looked, and not yet written."""

    def overtaken(files: Files, campaign_id: str) -> Latest | None:
        seen = reader.find_newest(files, campaign_id)
        monkeypatch.setattr(run, "find_newest", reader.find_newest)
        write_run(lake, "C", 3, {"1": "run 3"})
        run.update_pointer(files, campaign_id)
        return seen

    monkeypatch.setattr(run, "find_newest", overtaken)
    run.update_pointer(lake.files, "C")
    assert pointed(lake).run_number == 3


def test_pointer_names_the_newest_manifest_of_its_run(lake: DataLake) -> None:
    write_run(lake, "C", 2, {"1": "again"})
    run.update_pointer(lake.files, "C")
    assert pointed(lake).manifest == "run_number=2/_manifest-00001.json"


def test_campaign_without_run_has_no_pointer(tmp_path: Path) -> None:
    files = Files(str(tmp_path), {})
    run.update_pointer(files, "C")
    assert files.list_names("") == []
