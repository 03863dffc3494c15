"""Who has a campaign, as the lake's register says it: the one place that knows how it is asked."""

from datetime import UTC, datetime

from prefect.logging import disable_run_logger

from blocks import DataLake
from blocks.storage.manifest import campaign_partition
from tasks.journal.refresh import Refresh
from tasks.customers.staging import keep_staged
from tasks.refresh.claim import Claim, Overlap, claim_campaign
from tasks.refresh.register import Register, open_refreshes


def claim(
    lake: DataLake, campaign_id: str, flow_run: str, overlap: Overlap = "join", kept: bool = False
) -> Claim:
    """A flow run's claim of a campaign, `kept` once something is made of its list."""
    me = Refresh(id=flow_run, started=datetime.now(UTC))
    with disable_run_logger():
        claimed = claim_campaign.fn(lake, campaign_id, me, overlap, 0.001)
        if kept:
            keep_staged.fn(lake, me)
    return claimed


def holder(lake: DataLake, campaign_id: str) -> str | None:
    """The flow run whose refresh is the newest of a campaign."""
    _, entry = Register(lake.files, campaign_partition(campaign_id)).newest()
    return entry.flow_run if entry else None


def open_campaigns(lake: DataLake) -> list[str]:
    """The campaigns that have a refresh open, as retention sees them."""
    return sorted(place.partition("=")[2] for place in open_refreshes(lake.files))
