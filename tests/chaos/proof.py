"""What must be so after every kill, and at the end of every refresh."""

import polars as pl
from sqlalchemy import select

from nudgescribe import rfc4180
from nudgescribe.contract import Status
from sandbox.data.models import Usage
from tests.chaos.rig import Story

ACCEPTED = 246


def nothing_half(story: Story) -> None:
    """What a reader sees of the new run is all of it."""
    for row in story.lake.runs().itertuples():
        assert row.rows == ACCEPTED
        assert story.lake.read(story.campaign_id, row.run_number).shape == (ACCEPTED, 2)


def done_once(story: Story) -> None:
    """One group, one rerun, one publish, each customer once in the lake, nothing left behind."""
    lake = story.lake
    with story.company.client() as client:
        runs = client.rerun_history(story.campaign_id)
        groups = client.list_groups(story.company.seeded.workspace_id)
        (workspace,) = client.campaigns()
        pages = range(client.count_message_pages(story.campaign_id))
        sent = [client.fetch_csv(story.campaign_id, page).encode() for page in pages]
        (group,) = [one for one in groups if one.name != "First customers"]
        held = client.customers(group.workspace_id, group.customer_group_id)
        assert {one.customer_id: one.profile["plan"] for one in held} == story.accepted
    assert [(run.run_number, run.status) for run in runs] == [
        (2, Status.PUBLISHED),
        (1, Status.PUBLISHED),
    ]
    assert runs[0].customer_group_id == group.customer_group_id
    (campaign,) = workspace.campaigns
    assert (campaign.status, campaign.current_run) == (Status.PUBLISHED, 2)
    assert len(pages) == 3
    assert charged(story) == ACCEPTED
    nothing_half(story)
    assert [*lake.runs()["run_number"]] == [2]
    messages = lake.read(story.campaign_id, kind="polars")
    assert isinstance(messages, pl.DataFrame)
    assert sorted(messages["customer_id"]) == sorted(story.accepted)
    assert messages.equals(pl.concat(map(rfc4180.read, sent)))
    assert not list(lake.files.list_files("staging"))
    assert not story.is_open
    told_once(story)
    story.proven = True


def told_once(story: Story) -> None:
    """The history has the refresh, and each row that it rejected."""
    runs = story.lake.sync_runs(story.campaign_id)
    assert runs["run_id"].is_unique().all()
    (refresh,) = runs.filter(pl.col("outcome") == "completed").rows(named=True)
    counts = refresh["accepted"], refresh["rejected"], refresh["rows"], refresh["run_number"]
    rejected = story.lake.sync_changes().filter(pl.col("change") == "rejected")
    rejected = rejected.filter(pl.col("run_id") == refresh["run_id"])
    assert not rejected.is_duplicated().any()
    assert counts == (ACCEPTED, rejected["customer_id"].n_unique(), ACCEPTED, 2)
    assert story.lake.members(story.campaign_id).height == ACCEPTED


def charged(story: Story) -> int:
    """Messages the account has been charged for."""
    account = story.company.seeded.account_id
    with story.company.sandbox.context.store.read() as session:
        query = select(Usage.messages).where(Usage.account_id == account)
        return sum(session.scalars(query))
