"""The names of a campaign's folders."""

from typing import Any
from urllib.parse import unquote

import polars as pl
import pytest

from blocks import DataLake
from blocks.storage.manifest import campaign_partition
from tests.support.lakes import write_run


@pytest.mark.parametrize(
    ("campaign_id", "partition"),
    [
        ("C-1_a.b", "campaign_id=C-1_a.b"),
        ("a/b é", "campaign_id=a%2Fb%20%C3%A9"),
        ("x" * 243, "campaign_id=" + "x" * 243),
        ("x" * 244, "campaign_id=" + "x" * 210 + "+7d19aed0baf5bdab6f3aa03abd0e0163"),
    ],
)
def test_partition_of_campaign_stays_what_it_is(campaign_id: str, partition: str) -> None:
    assert campaign_partition(campaign_id) == partition


def test_partitions_of_long_ids_are_short_and_differ() -> None:
    ids = [sign * length for sign in ("x", "日", "%") for length in range(80, 302)]
    names = [campaign_partition(each) for each in ids]
    assert len({*names}) == len(ids)
    assert max(map(len, names)) <= 255
    assert [*map(unquote, names)] == [unquote(name, errors="strict") for name in names]


@pytest.mark.parametrize("file_format", ["parquet", "delta"])
@pytest.mark.parametrize(
    "campaign_id", ["../../etc", "..", ".", "a/b", "a%2Fb", "%2e%2e", "a=b", "a?b#c", "日" * 300]
)
def test_campaign_of_any_id_has_its_folder(
    campaign_id: str, file_format: Any, tmp_path: Any
) -> None:
    lake = DataLake(root=str(tmp_path / "lake"), format=file_format)
    write_run(lake, campaign_id, 1, {"1": "hello"})
    frame = lake.read(campaign_id, kind="polars")
    assert isinstance(frame, pl.DataFrame)
    assert frame["message"].to_list() == ["hello"]
    assert lake.runs()["campaign_id"].to_list() == [campaign_id]
    assert [each.name for each in tmp_path.iterdir()] == ["lake"]
    if file_format == "delta":
        table = pl.scan_delta(lake.files.url("messages")).collect()
        (shown,) = table["campaign_id"]  # polars takes it from the path
        assert shown == campaign_id or campaign_id.startswith(shown.partition("+")[0])
