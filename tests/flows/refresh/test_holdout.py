"""A share of customers gets no message, always the same ones."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from blocks import FileCrm
from blocks.secrets import SecretUnusable
from flows.options import RefreshOptions
from flows.plan import plan_refresh
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from tasks.refresh.plan import Plan
from tasks.refresh.report import RefreshResult
from tasks.ui.artifacts import artifact_key
from tests.conftest import Company, Save, Saved, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import Deployed, changes, deployed

__all__ = ["deployed"]

LISTED = customers(120)
EVERYBODY = {*LISTED["customer_id"]}
KEY = "a key for this experiment"
LAKE_FILE = "holdouts/campaign_id={}/run_number={}/customers.parquet"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDOUT_KEY", KEY)


def chosen(share: float, ids: set[str] = EVERYBODY) -> set[str]:
    """Whom any machine with the key must choose."""
    digests = {id_: hmac.new(KEY.encode(), id_.encode(), hashlib.sha256).hexdigest() for id_ in ids}
    return {id_ for id_, digest in digests.items() if int(digest[:16], 16) / 2**64 < share}


def options(share: float, **more: Any) -> RefreshOptions:
    holdout = {"share": share, "key": "env:HOLDOUT_KEY"}
    values = {"holdout": holdout, "guardrails": {"max_shrink": 1}, **more}
    return RefreshOptions.model_validate(values)


def refresh(company: Company, saved: Saved, share: float, **more: Any) -> RefreshResult:
    result = campaign_refresh(
        company.seeded.campaign_id, **saved.blocks, options=options(share, **more)
    )
    assert isinstance(result, RefreshResult)
    return result


def held_out(company: Company, saved: Saved, run_number: int) -> set[str]:
    path = saved.root / LAKE_FILE.format(company.seeded.campaign_id, run_number)
    return {*pl.read_parquet(path, hive_partitioning=False)["customer_id"]}


def in_lake(company: Company, saved: Saved, run_number: int) -> set[str]:
    read = saved.lake.read(company.seeded.campaign_id, run_number, "polars")
    assert isinstance(read, pl.DataFrame)
    return {*read["customer_id"]}


def test_the_same_customers_are_held_out_of_each_run(reviewed_company: Company, save: Save) -> None:
    company, saved = reviewed_company, save(reviewed_company, LISTED)
    plan = plan_refresh(company.seeded.campaign_id, **saved.blocks, options=options(0.2))
    few, more = chosen(0.2), chosen(0.4)
    assert 0 < len(few) < len(more) < 120
    assert isinstance(plan, Plan)
    assert (plan.accepted, plan.held_out) == (120 - len(few), len(few))
    assert not (saved.root / "holdouts").exists()

    first = refresh(company, saved, 0.2, plan_id=plan.plan_id)
    assert (first.accepted, first.held_out, first.rejected) == (120 - len(few), len(few), 0)
    told = saved.lake.sync_runs().select("flow", "outcome", "held_out", "suppressed").rows()
    assert told == [
        ("plan-refresh", "completed", len(few), None),
        ("campaign-refresh", "completed", len(few), None),
    ]
    changed = saved.lake.sync_changes().filter(pl.col("change") == "held_out")
    assert sorted(changed["customer_id"]) == sorted([*few, *few])
    assert held_out(company, saved, 2) == few
    assert in_lake(company, saved, 2) == EVERYBODY - few
    assert refresh(company, saved, 0.2, if_unchanged="skip") == first
    pages = [str(one.data) for one in all_artifacts() if first.path in str(one.data)]
    assert f"| held out, not uploaded | {len(few)} |" in pages[0]

    # In another order and with others in the list they are still the same.
    LISTED.reverse().head(100).write_csv(saved.crm_file)
    refresh(company, saved, 0.4)
    listed = {*LISTED.reverse().head(100)["customer_id"]}
    assert held_out(company, saved, 3) == more & listed
    assert in_lake(company, saved, 3) == listed - more


def test_holdout_is_in_the_lake_before_the_publication(company: Company, save: Save) -> None:
    saved, campaign = save(company, LISTED), company.seeded.campaign_id
    campaign_refresh(
        campaign, **saved.blocks, options=options(0.2, review="stop"), return_state=True
    )
    assert held_out(company, saved, 2) == chosen(0.2)
    # As if it had been killed before, and its list is gone once it has been finished.
    (saved.root / LAKE_FILE.format(campaign, 2)).unlink()
    company.sandbox.approve(campaign).raise_for_status()
    result = publish_campaign(campaign, saved.account, saved.lake)
    assert isinstance(result, RefreshResult)
    assert result.held_out == len(chosen(0.2))
    assert held_out(company, saved, 2) == chosen(0.2)
    assert [*saved.root.glob("staging/*")] == []


def test_suppressed_are_not_held_out(reviewed_company: Company, save: Save, tmp_path: Path) -> None:
    company, saved = reviewed_company, save(reviewed_company, LISTED)
    few = {*sorted(chosen(0.2))[:3]}
    pl.DataFrame({"customer_id": [*few]}).write_csv(tmp_path / "suppressed.csv")
    block = FileCrm(path=str(tmp_path / "suppressed.csv"))
    block.save(f"{saved.name}-suppressed")
    result = refresh(company, saved, 0.2, suppress=block)
    assert (result.suppressed, result.held_out) == (3, len(chosen(0.2)) - 3)
    assert held_out(company, saved, 2) == chosen(0.2) - few


def test_another_key_is_told_before_and_after(
    reviewed_company: Company,
    save: Save,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    company, saved = reviewed_company, save(reviewed_company, LISTED)
    campaign = company.seeded.campaign_id
    notice = "The key of the holdout is not that of run"
    assert refresh(company, saved, 0.2).other_holdout is None
    assert refresh(company, saved, 0.3).other_holdout is None
    assert notice not in caplog.text
    monkeypatch.setenv("HOLDOUT_KEY", "another key")
    plan_refresh(campaign, **saved.blocks, options=options(0.3))
    assert f"{notice} 3: other customers" in caplog.text
    assert refresh(company, saved, 0.3).other_holdout == 3
    assert refresh(company, saved, 0.3).other_holdout is None
    pages = {one.key: str(one.data) for one in reversed(all_artifacts()) if notice in str(one.data)}
    assert pages.keys() == {
        artifact_key(kind, "Welcome back", campaign) for kind in ("plan", "refresh")
    }
    assert all(f"{notice} 3: other customers" in page for page in pages.values())
    for file in saved.root.rglob("*"):
        assert not (file.is_file() and b"another key" in file.read_bytes())
    # What cannot be read tells nothing.
    (saved.root / LAKE_FILE.format(campaign, 5)).write_bytes(b"")
    monkeypatch.setenv("HOLDOUT_KEY", KEY)
    assert refresh(company, saved, 0.3).other_holdout is None


def test_reviewers_are_told_how_many_are_held_out(
    company: Company, save: Save, deployed: Deployed
) -> None:
    saved, campaign = save(company, LISTED), company.seeded.campaign_id
    holdout = {"share": 0.2, "key": "env:HOLDOUT_KEY"}
    run = deployed.refresh(company, saved, review="suspend", holdout=holdout)
    assert deployed.work(run).name == "Suspended"
    key = artifact_key("review", "Welcome back", campaign)
    (page,) = (str(one.data) for one in all_artifacts() if one.key == key)
    assert f"| customers held out, not in the list | {len(chosen(0.2))} |" in page
    assert "suppressed" not in page


def test_key_that_is_not_there_stops_before_anything_is_changed(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(company, LISTED)
    monkeypatch.delenv("HOLDOUT_KEY")
    with pytest.raises(SecretUnusable, match=r"options\.holdout\.key: there is no environment"):
        refresh(company, saved, 0.2)
    assert changes(company) == []


@pytest.mark.parametrize("key", [KEY, f"literal:{KEY}", ""])
def test_key_itself_is_refused_as_a_parameter(key: str) -> None:
    with pytest.raises(ValidationError, match="where the key is, and not the key") as told:
        RefreshOptions.model_validate({"holdout": {"share": 0.1, "key": key}})
    assert KEY not in str(told.value)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_share_is_more_than_nobody_and_less_than_everybody(share: float) -> None:
    with pytest.raises(ValidationError, match=r"holdout\.share"):
        options(share)
