"""The segments of runs in the lake: who got which message, and why."""

import shutil
from typing import Any

import duckdb
import polars as pl
import pytest

from blocks import DataLake
from blocks.storage.files import OWNER_ONLY
from blocks.storage.manifest import Format
from blocks.storage.segments import SegmentsDamaged, SegmentsMissing
from flows.export import export_messages
from flows.options import ExportOptions, RefreshOptions
from flows.refresh import campaign_refresh
from flows.retention import RetentionOptions, lake_retention
from flows.run import fetch
from nudgescribe.errors import Retryable
from tasks.customers.guardrails import Guardrails
from tasks.export import segments
from tests.conftest import SEEDED_CUSTOMERS, Company, Save, Saved, customers
from tests.test_documents import code

VARIABLES = ["plan", "region"]


def refresh(company: Company, saved: Saved) -> Any:
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1))
    return campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)


def export(company: Company, saved: Saved, **options: Any) -> None:
    given = ExportOptions.model_validate(options)
    export_messages(company.seeded.campaign_id, saved.account, saved.lake, "all", given)


def why(saved: Saved, campaign: str, run: int) -> dict[str, tuple[str, str]]:
    """The plan and the region by which each customer got the message."""
    joined = saved.lake.members(campaign, run).join(
        saved.lake.segments(campaign, run), on="segment_id"
    )
    assert joined["customer_id"].is_unique().all()
    values = (pl.col("segment").str.json_path_match(f"$.{name}").alias(name) for name in VARIABLES)
    return by_customer(joined.with_columns(values))


def by_customer(listed: pl.DataFrame) -> dict[str, tuple[str, str]]:
    return {id_: (plan, region) for id_, plan, region in listed[["customer_id", *VARIABLES]].rows()}


def test_refresh_tells_who_got_which_message_and_why(reviewed_company: Company, save: Save) -> None:
    company, listed = reviewed_company, customers(40)
    saved, campaign = save(company, listed), company.seeded.campaign_id
    saved.save_account(company.account(profile_key=None))  # the list is enough
    refresh(company, saved)
    assert why(saved, campaign, 2) == by_customer(listed)
    with company.client() as client:
        at_service = client.rerun_messages(campaign, 2)
    told = saved.lake.segments(campaign)
    assert {*told["message_id"]} == {one.message_id for one in at_service}
    assert {*told["message"]} == {one.message for one in at_service}
    assert {*told["review_status"]} == {one.review_status for one in at_service}
    assert {*told["approval_stage"]} == {one.approval_stage for one in at_service}
    assert not told["archived"].any()
    folder = saved.root / "segments" / f"campaign_id={campaign}" / "run_number=2"
    members = folder / "members-00000.parquet"
    assert members.stat().st_mode & 0o777 == OWNER_ONLY
    # A segment has the same id in every run.
    saved.save_account(company.account())
    export(company, saved)
    before = saved.lake.segments(campaign, 1)
    assert {*before["segment_id"]} & {*told["segment_id"]}

    names: dict[str, Any] = {"lake": saved.lake, "campaign_id": campaign}
    (block,) = code("python segments")
    exec(block, names)
    assert names["why"].height == 40
    (sql,) = code("sql segments")
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{saved.root}/'")
        rows = connection.execute(sql).fetchall()
    sizes = dict.fromkeys((each.segment["plan"], each.message) for each in at_service)
    assert {row[1:3] for row in rows if row[0] == 2} == sizes.keys()
    assert sum(row[3] for row in rows if row[0] == 2) == 40
    assert sum(row[3] for row in rows if row[0] == 1) == SEEDED_CUSTOMERS


def test_export_adds_segments_of_past_runs_that_are_in_the_lake_already(
    reviewed_company: Company, save: Save
) -> None:
    company = reviewed_company
    saved, campaign = save(company, customers(40)), company.seeded.campaign_id
    refresh(company, saved)
    shutil.rmtree(saved.root / "segments")  # an earlier version wrote it
    with pytest.raises(SegmentsMissing, match="no segments of run 2"):
        saved.lake.segments(campaign)
    export(company, saved)
    assert len(why(saved, campaign, 1)) == SEEDED_CUSTOMERS
    assert why(saved, campaign, 2) == by_customer(customers(40))
    assert saved.lake.segments(campaign, 1)["archived"].any()


def test_members_are_those_with_a_message(company: Company, save: Save) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    with company.client() as client:
        where = company.seeded.workspace_id, company.seeded.customer_group_id
        for each in ("added", "other"):
            client.upload_customer(*where, {**customers(1).row(0, named=True), "customer_id": each})
    export(company, saved, check_rows=False)
    ids = saved.lake.read(campaign, 1, "polars")["customer_id"]
    assert {*saved.lake.members(campaign)["customer_id"]} == {*ids}
    assert len(ids) == SEEDED_CUSTOMERS


def test_rewritten_run_has_segments_of_its_own(company: Company, save: Save) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    export(company, saved)
    export(company, saved, rewrite=True)
    folder = saved.root / "segments" / f"campaign_id={campaign}" / "run_number=1"
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["members-00001.parquet", "segments-00001.parquet"]
    (folder / names[1]).write_bytes(b"")
    with pytest.raises(SegmentsDamaged, match=names[1]):
        saved.lake.segments(campaign)


def test_run_is_exported_without_what_cannot_be_had(
    company: Company, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    saved.save_account(company.account(profile_key=None))
    export(company, saved)
    assert "lacks segments: Customer profiles are encrypted" in caplog.text
    assert saved.lake.segments(campaign).height
    with pytest.raises(SegmentsMissing, match="no members of run 1"):
        saved.lake.members(campaign)
    assert saved.lake.sync_runs()["outcome"].to_list() == ["completed"]
    saved.save_account(company.account())
    export(company, saved)
    assert saved.lake.members(campaign).height == SEEDED_CUSTOMERS


def test_segments_go_with_their_run(reviewed_company: Company, save: Save) -> None:
    company = reviewed_company
    saved, campaign = save(company, customers(40)), company.seeded.campaign_id
    export(company, saved)
    refresh(company, saved)
    options = RetentionOptions(runs_kept=1, dry_run=False)
    lake_retention(saved.lake, saved.account, options)
    folder = saved.root / "segments" / f"campaign_id={campaign}"
    assert [each.name for each in folder.iterdir()] == ["run_number=2"]


@pytest.mark.parametrize("format_", ["csv", "csv.zst", "delta"])
def test_tables_beside_the_runs_are_parquet_whatever_the_format(
    reviewed_company: Company, save: Save, format_: Format
) -> None:
    company = reviewed_company
    saved, campaign = save(company, customers(40)), company.seeded.campaign_id
    saved.lake = DataLake(root=str(saved.root), format=format_)
    export(company, saved)
    refresh(company, saved)
    customers(39).write_csv(saved.crm_file)
    refresh(company, saved)
    assert why(saved, campaign, 3) == by_customer(customers(39))
    counts = saved.lake.sync_runs().select("flow", "rows", "removed").rows()
    assert counts == [
        ("export-messages", SEEDED_CUSTOMERS, None),
        ("campaign-refresh", 40, SEEDED_CUSTOMERS - 40),
        ("campaign-refresh", 39, 1),
    ]
    last = saved.lake.sync_runs()["run_id"][-1]
    changes = saved.lake.sync_changes().filter(run_id=last, change="removed")
    assert [*changes["customer_id"]] == [customers(40)["customer_id"][-1]]
    lake_retention(saved.lake, saved.account, RetentionOptions(runs_kept=1, dry_run=False))
    folder = saved.root / "segments" / f"campaign_id={campaign}"
    assert [each.name for each in folder.iterdir()] == ["run_number=3"]


@pytest.mark.parametrize("step", ["write_segments", "_save_members", "_with_message"])
def test_segments_are_written_when_killed_before(
    company: Company, save: Save, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(segments, step, killed)
        with pytest.raises(KeyboardInterrupt):
            export(company, saved)
    export(company, saved)
    assert len(why(saved, campaign, 1)) == SEEDED_CUSTOMERS


def test_members_of_an_exported_run_are_left_out_if_nobody_asks_for_them(
    company: Company, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id
    saved.save_account(company.account(profile_key=None))  # reading the group would be warned of
    export(company, saved, members=False)
    assert saved.lake.segments(campaign).height
    assert "lacks segments" not in caplog.text
    with pytest.raises(SegmentsMissing, match="no members of run 1"):
        saved.lake.members(campaign)


def test_run_is_exported_though_the_service_has_no_segments_just_now(
    company: Company, save: Save, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, campaign = save(company, customers(1)), company.seeded.campaign_id

    def away(*_: object, **__: object) -> None:
        raise Retryable("The service does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "save_segments", away)
        export(company, saved)
    assert "Run 1 lacks segments: The service does not answer." in caplog.text
    export(company, saved)
    assert saved.lake.segments(campaign).height
