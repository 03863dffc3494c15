"""A refresh whose lake is on a real S3: all that it writes beside the messages is there, too."""

from pathlib import Path

import polars as pl
import pytest

from blocks import FileCrm
from blocks.storage.manifest import Format
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from flows.retention import RetentionOptions, lake_retention
from tasks.refresh.report import RefreshResult
from tests.conftest import Company, Save, customers
from tests.s3.ceph import Server
from tests.s3.conftest import lake_in

LISTED = customers(60)
SUPPRESSED = [*LISTED["customer_id"][:4]]


@pytest.mark.parametrize("format_", ["parquet", "csv.zst", "delta"])
def test_refreshes_have_history_segments_and_holdouts(
    ceph: Server,
    bucket: str,
    reviewed_company: Company,
    save: Save,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format_: Format,
) -> None:
    company, saved = reviewed_company, save(reviewed_company, LISTED)
    lake = lake_in(f"s3://{bucket}/lake", ceph.storage_options, format=format_)
    lake.save(saved.name, overwrite=True)
    block = FileCrm(path=str(tmp_path / "suppressed.csv"))
    LISTED.head(4).write_csv(block.path)
    block.save(f"{saved.name}-suppressed")
    options = RefreshOptions.model_validate(
        {
            "guardrails": {"max_shrink": 1},
            "suppress": block,
            "holdout": {"share": 0.3, "key": "env:HOLDOUT_KEY"},
        }
    )
    campaign, results = company.seeded.campaign_id, list[RefreshResult]()
    for key in ("one", "two"):
        monkeypatch.setenv("HOLDOUT_KEY", key)
        result = campaign_refresh(campaign, saved.account, saved.crm, lake, options)
        assert isinstance(result, RefreshResult)
        results.append(result)
    first, last = results
    assert (first.other_holdout, last.other_holdout) == (None, 2)

    columns = "outcome", "accepted", "suppressed", "suppressed_since", "held_out", "rows"
    assert lake.sync_runs(campaign).select(columns).rows() == [
        ("completed", each.accepted, 4, 0, each.held_out, each.accepted) for each in results
    ]
    ids = lake.sync_changes(campaign).filter(change="suppressed")["customer_id"]
    assert sorted(ids) == sorted([*SUPPRESSED, *SUPPRESSED])
    held_out = lake.sync_changes(campaign).filter(change="held_out")
    assert held_out.height == first.held_out + last.held_out
    for each in results:
        members = lake.members(campaign, each.run_number)
        messages = lake.read(campaign, each.run_number, "polars")
        assert isinstance(messages, pl.DataFrame)
        assert {*members["customer_id"]} == {*messages["customer_id"]}
        assert {*members["segment_id"]} == {*lake.segments(campaign, each.run_number)["segment_id"]}

    lake_retention(lake, saved.account, RetentionOptions(runs_kept=1, dry_run=False))
    for folder in ("segments", "holdouts"):
        assert lake.files.list_names(f"{folder}/campaign_id={campaign}") == ["run_number=3"]
