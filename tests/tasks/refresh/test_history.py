"""The history of a campaign's refreshes, whatever else lies beside its journals."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks import DataLake
from blocks.storage.errors import LakeError
from tasks.journal.entries import JournalDamaged
from tasks.journal.owners import Owner
from tasks.journal.refresh import Claimed, Refresh
from tasks.refresh.history import History, open_refreshes
from tests.support.stores import Store, serving

PARTITION = "campaign_id=C"


def begin(lake: DataLake, partition: str = PARTITION) -> History:
    history = History(lake.files, partition)
    me = Refresh(id="A", started=datetime.now(UTC))
    assert history.begin(1, Claimed(refresh=me, owner=Owner(flow_run="A", host="h", pid=1)))
    return history


def holder(history: History) -> str | None:
    standing = history.newest()
    return standing.owner.flow_run if standing and standing.owner else None


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    return DataLake(root=str(tmp_path / "lake"))


@pytest.mark.parametrize(
    "name", ["notes.txt", "00000001.json.bak", ".DS_Store", ".nfs0000001", "@eaDir/x", "00000002/x"]
)
def test_name_that_is_no_journal_is_passed_over(lake: DataLake, name: str) -> None:
    history = begin(lake)
    for folder in ("", f"{PARTITION}/", f"{PARTITION}/00000001/"):
        lake.files.write(f"refreshes/{folder}{name}", b"x")
    assert holder(history) == "A"
    assert [*open_refreshes(lake.files)] == [PARTITION]


def test_history_passes_over_object_that_stands_for_a_folder() -> None:
    with serving() as store:
        lake = marked(store)
        history = begin(lake)
        assert holder(history) == "A"
        assert [*open_refreshes(lake.files)] == [PARTITION]


def marked(store: Store) -> DataLake:
    for folder in ("", f"{PARTITION}/", f"{PARTITION}/00000001/", f"{PARTITION}/00000002/"):
        store.put(f"marked/refreshes/{folder}")
    return store.lake("s3://lake/marked")


@pytest.mark.parametrize("left", [0, 40])
def test_damaged_journal_is_told_and_stops_its_campaign_alone(lake: DataLake, left: int) -> None:
    for partition in ("campaign_id=bad", "campaign_id=good"):
        begin(lake, partition)
    path = "refreshes/campaign_id=bad/00000001/00-claimed.json"
    lake.files.write(path, lake.files.read(path)[:left])
    with pytest.raises(JournalDamaged, match=path):
        History(lake.files, "campaign_id=bad").newest()
    found = open_refreshes(lake.files)
    assert isinstance(found["campaign_id=bad"], LakeError)
    assert not isinstance(found["campaign_id=good"], LakeError)
