"""Who has a campaign, as its journals say it: the one place that knows how it is asked."""

from datetime import UTC, datetime

from prefect.logging import disable_run_logger

from blocks import DataLake
from blocks.storage.manifest import campaign_partition
from tasks.journal.refresh import Refresh
from tasks.refresh.claim import Claim, Overlap, claim_campaign
from tasks.refresh.history import History, open_refreshes


def claim(lake: DataLake, campaign_id: str, flow_run: str, overlap: Overlap = "join") -> Claim:
    """A flow run's claim of a campaign."""
    me = Refresh(id=flow_run, started=datetime.now(UTC))
    with disable_run_logger():
        return claim_campaign.fn(lake, campaign_id, me, overlap, 0.001)


def holder(lake: DataLake, campaign_id: str) -> str | None:
    """The flow run whose refresh is the newest of a campaign."""
    standing = History(lake.files, campaign_partition(campaign_id)).newest()
    return standing.owner.flow_run if standing and standing.owner else None


def open_campaigns(lake: DataLake) -> list[str]:
    """The campaigns that have a refresh open, as retention sees them."""
    return sorted(place.partition("=")[2] for place in open_refreshes(lake.files))
