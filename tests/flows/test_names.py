"""Names and tags of flow runs that never came to their work: people recognise the campaign."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from blocks import DataLake
from flows.abandon import abandon_refresh
from flows.export import export_messages
from flows.options import RefreshOptions
from flows.plan import plan_refresh
from flows.publish import NotReviewed, publish_campaign
from flows.refresh import campaign_refresh
from flows.run.review_gate import SuspensionImpossible
from nudgescribe.errors import AuthError, NotPublished, ServiceUnreachable
from tasks.customers.guardrails import Guardrails
from tasks.refresh.claim import NothingToPublish, RefreshOpen
from tests.conftest import Company, Save, Saved, customers
from tests.support.deployed import Deployed, deployed, flow_run, flow_run_of

__all__ = ["deployed"]

GUARDRAILS = Guardrails(max_shrink=1)
TAGS = {"campaign: Welcome back", "workspace: Marketing"}


@pytest.fixture
def saved(company: Company, save: Save) -> Saved:
    return save(company, customers(60))


def refresh(company: Company, saved: Saved, **given: Any) -> Any:
    options = RefreshOptions(guardrails=GUARDRAILS, **given)
    return campaign_refresh(company.seeded.campaign_id, **saved.blocks, options=options)


def names(saved: Saved) -> tuple[str, set[str]]:
    """Name and tags of the newest flow run."""
    run = flow_run_of(saved)
    return run.name, {*run.tags}


def test_flow_run_that_does_not_get_the_campaign_has_its_name(
    company: Company, saved: Saved
) -> None:
    refresh(company, saved, review="stop")
    refresh(company, saved, overlap="skip")
    assert names(saved) == ("Welcome back", TAGS)
    with pytest.raises(RefreshOpen):
        refresh(company, saved, overlap="fail")
    assert names(saved) == ("Welcome back", TAGS)
    with pytest.raises(SuspensionImpossible):
        refresh(company, saved, review="suspend")
    assert names(saved) == ("Welcome back", TAGS)


@pytest.mark.parametrize("wrong", ["address", "password"])
def test_flow_run_that_fails_at_first_contact_has_the_name_that_the_lake_knows(
    company: Company, saved: Saved, wrong: str
) -> None:
    refresh(company, saved, review="stop")
    abandon_refresh(company.seeded.campaign_id, saved.account, saved.lake, "Ann", "No use")
    assert names(saved) == ("Welcome back", TAGS)
    changed = {
        "address": {"base_url": company.sandbox.url.replace("http://", "https://")},
        "password": {"password": "wrong"},
    }
    saved.save_account(company.account(**changed[wrong]))
    for flow in (campaign_refresh, plan_refresh, export_messages):
        blocks = dict(saved.blocks)
        if flow is export_messages:
            del blocks["crm"]
        with pytest.raises((ServiceUnreachable, AuthError)):
            flow(company.seeded.campaign_id, **blocks)
        assert names(saved) == ("Welcome back", TAGS)


def test_damaged_journal_does_not_hide_the_names_of_others(company: Company, saved: Saved) -> None:
    refresh(company, saved, review="stop")
    abandon_refresh(company.seeded.campaign_id, saved.account, saved.lake, "Ann", "No use")
    (found,) = saved.root.glob("refreshes/*/*/*-found.json")
    newest = found.parents[1] / f"{int(found.parent.name) + 1:08}"
    copytree(found.parent, newest)
    newest.joinpath(found.name).write_text("{")
    saved.save_account(company.account(password="wrong"))
    with pytest.raises(AuthError):
        refresh(company, saved)
    assert names(saved) == ("Welcome back", TAGS)


def test_retry_of_a_renamed_campaign_has_its_new_tags(
    deployed: Deployed, company: Company, saved: Saved
) -> None:
    run = deployed.refresh(company, saved, review="stop")
    with get_client(sync_client=True) as client:
        former = ["campaign: Spring sale", "mine", "workspace: Sales"]
        client.update_flow_run(run, tags=former)
    assert deployed.work(run).is_completed()
    assert {*flow_run(run).tags} == {"mine", *TAGS}


def test_plan_and_export_of_a_campaign_in_review_have_its_name(
    company: Company, saved: Saved, tmp_path: Path
) -> None:
    refresh(company, saved, review="stop")
    lake = DataLake(root=str(tmp_path / "another"))  # which knows no campaign
    campaign = company.seeded.campaign_id
    with pytest.raises(NotPublished):
        plan_refresh(campaign, saved.account, saved.crm, lake)
    assert names(saved) == ("Welcome back", TAGS)
    with pytest.raises(NotPublished):
        export_messages(campaign, saved.account, lake, 2)
    assert names(saved) == ("Welcome back", TAGS)


def test_refused_publication_has_the_name_of_its_campaign(company: Company, saved: Saved) -> None:
    campaign = company.seeded.campaign_id
    with pytest.raises(NothingToPublish):
        publish_campaign(campaign, saved.account, saved.lake)
    assert names(saved) == (f"publish-{campaign}", set[str]())
    refresh(company, saved, review="stop")
    with pytest.raises(NotReviewed):
        publish_campaign(campaign, saved.account, saved.lake)
    assert names(saved) == ("Welcome back, run 2: publication", TAGS)
    abandon_refresh(campaign, saved.account, saved.lake, "Ann", "No use")
    with pytest.raises(NothingToPublish):
        publish_campaign(campaign, saved.account, saved.lake)
    assert names(saved) == ("Welcome back", TAGS)
