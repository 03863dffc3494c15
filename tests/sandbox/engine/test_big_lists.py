"""A list of 100 MB from upload to export: the service's memory does not grow with it."""

import polars as pl
import pytest

from benchmarks.big_list import peak_mib
from nudgescribe import rfc4180
from nudgescribe.contract import Status
from sandbox import seed
from sandbox.settings import Settings
from tests.conftest import customers
from tests.sandbox.engine import test_restart
from tests.sandbox.engine.test_restart import running
from tests.support.clock import until

settings, seeded = test_restart.settings, test_restart.seeded

ROWS = 100_000
LIMIT_MIB = 400


def list_of_100_mb() -> bytes:
    """Return a list of 100,000 customers with a last name of a kilobyte each."""
    some = customers(1000).drop("customer_id", "last_name")
    ids = pl.DataFrame({"customer_id": [f"{number:06d}" for number in range(ROWS)]})
    rest = pl.concat([some] * (ROWS // 1000)).with_columns(last_name=pl.lit("Müller, " * 110))
    return rfc4180.write(pl.concat([ids, rest], how="horizontal"))


@pytest.mark.chaos
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_memory_stays_below_the_limit_for_a_list_of_100_mb(
    settings: Settings, seeded: seed.Seeded
) -> None:
    csv = list_of_100_mb()
    assert len(csv) > 90e6
    campaign = seeded.campaign_id
    everyone = Settings(data=settings.data, database=settings.database, rows_per_file=10_000)
    with running(everyone, seeded) as service:
        client = service.client
        group = client.create_group(seeded.workspace_id, "Everyone").customer_group_id
        assert client.upload_customers(seeded.workspace_id, group, csv).status == "queued"
        until(lambda: client.count_customers(seeded.workspace_id, group).total == ROWS)
        client.initiate_rerun(campaign, group)
        until(lambda: client.rerun_history(campaign)[0].status != Status.PROCESSING)
        service.approve(campaign)
        client.publish(campaign)
        until(lambda: client.count_message_pages(campaign) == 10)
        assert peak_mib(service.pid) < LIMIT_MIB
