"""The list's segments against the campaign's: what the rerun will do."""

import polars as pl
from prefect import task
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.loading import load
from nudgescribe import segments
from tasks.campaigns import CampaignRef
from tasks.policies import READ
from tasks.staging import Staged, local_copy
from tasks.validate import ListRefused


class SegmentCounts(BaseModel):
    """Segments of the list against those of the campaign's current run, and the customers in the
    new ones.
    """

    model_config = ConfigDict(frozen=True)

    matched: int
    new: int
    orphaned: int
    customers_in_new: int


@task(**READ)
def compare_segments(
    account: str, campaign: CampaignRef, accepted: Staged, lake: str
) -> SegmentCounts:
    """How the list's segments compare with those of the run before: what the rerun will do."""
    with load(NudgescribeAccount, account).get_client() as client:
        messages = client.rerun_messages(campaign.campaign_id, campaign.previous_run)
    variables = sorted({name for message in messages for name in message.segment})
    with local_copy(load(DataLake, lake), accepted) as file:
        frame = pl.scan_parquet(file)
        missing = [name for name in variables if name not in frame.collect_schema()]
        if missing:
            raise ListRefused(
                f"The list has no column for the campaign's variables {', '.join(missing)}."
            )
        sizes = segments.count(frame, variables)
    compared = segments.compare((m.segment for m in messages), (segment for segment, _ in sizes))
    new = {segments.key(segment) for segment in compared.new}
    return SegmentCounts(
        matched=len(compared.matched),
        new=len(compared.new),
        orphaned=len(compared.orphaned),
        customers_in_new=sum(size for segment, size in sizes if segments.key(segment) in new),
    )
