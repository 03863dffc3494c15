"""Data folders of earlier versions open, and have what this one needs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select, text

from sandbox import seed
from sandbox.context import Context, open_context
from sandbox.data.models import Run, Usage, now
from sandbox.settings import Settings
from tests.conformance import stories
from tests.conftest import Company, customers, serving
from tests.sandbox.conftest import new_group
from tests.support.sandboxes import NewDatabase

LATER = {
    "usage": ["generated"],
    "campaigns": ["group_id", "ai", "created_at", "updated_at"],
    "runs": ["charged"],
    "messages": ["created_at", "updated_at"],
    "jobs": ["user_id", "created_at", "updated_at"],
}
"""Columns that folders of earlier versions do not have."""


def make_older(context: Context, seeded: seed.Seeded) -> None:
    """Take away what earlier versions did not have, and give what they had."""
    ended = now()
    run = {"status": "Published", "group_name": "First customers", "segment_count": 16}
    with context.store.write() as session:
        session.execute(
            insert(Run).values(
                campaign_id=seeded.campaign_id,
                run_number=1,
                group_id=seeded.customer_group_id,
                started_at=ended + timedelta(milliseconds=1),
                completed_at=ended,
                **run,
            )
        )
    context.store.close()
    engine = create_engine(context.settings.database_url)
    with engine.begin() as connection:
        for table, columns in LATER.items():
            for column in columns:
                connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(text("DROP TABLE charged"))
    engine.dispose()
    exports = Path(context.settings.exports_url)
    (exports / seeded.account_id / seeded.campaign_id).rename(exports / seeded.campaign_id)
    (exports / seeded.account_id).rmdir()


@pytest.fixture
def older(tmp_path: Path, database: NewDatabase) -> Iterator[Company]:
    """A company of an earlier version, served by this one for the second time."""
    settings = Settings(data=tmp_path, database=database(), rows_per_file=100)
    context = open_context(settings)
    seeded = seed.seed(context, 250)
    make_older(context, seeded)
    open_context(settings).store.close()
    with serving(settings) as service:
        yield Company(service, seeded)


def test_older_publication_is_not_charged_again(older: Company) -> None:
    stories.set_quota(older, 250)
    campaign, group = older.seeded.campaign_id, older.seeded.customer_group_id
    with older.client() as client:
        for _ in range(2):
            client.publish(campaign)
        added = {**client.rerun_messages(campaign)[0].segment, "customer_id": "added"}
        one = {"first_name": "Ada", **added}
        assert client.upload_customer(older.seeded.workspace_id, group, one).accepted == 1
        client.publish(campaign)
    with older.sandbox.context.store.read() as session:
        (usage,) = session.scalars(select(Usage))
    assert usage.messages == 1


def test_older_folder_is_refreshed_and_keeps_its_pages(older: Company) -> None:
    campaign = older.seeded.campaign_id
    with older.client() as client:
        (first,) = client.rerun_history(campaign)
        assert (first.run_number, first.customer_group_name) == (1, "First customers")
        assert first.started_at == first.completed_at
        assert client.count_message_pages(campaign) == 3
        assert older.page_file().read_bytes().decode() == client.fetch_csv(campaign, 0)
        group = new_group(client, older.seeded, customers(120))
        client.initiate_rerun(campaign, group)
        assert older.settle(client).status == "Ready for review"
        older.sandbox.approve(campaign)
        client.publish(campaign)
        while client.count_message_pages(campaign) != 2:
            pass
        assert client.count_message_pages(campaign, run_number=1) == 3
        assert [run.run_number for run in client.rerun_history(campaign)] == [2, 1]
