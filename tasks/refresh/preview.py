"""The list against the campaign's current run: what the rerun will do."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from prefect import task
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from nudgescribe import segments
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Segment
from nudgescribe.errors import NotFound
from tasks.campaigns import CampaignRef, Refresh
from tasks.customers.staging import folder_of, local_copy, noted
from tasks.customers.validate import ListRefused, Validated
from tasks.policies import READ


class Preview(BaseModel):
    """Segments of the list against those of the campaign's current run, the customers in the new
    ones, and how many customers there were `before`, if that group is still there.
    """

    model_config = ConfigDict(frozen=True)

    matched: int
    new: int
    orphaned: int
    customers_in_new: int
    before: int | None


@task(**READ)
def compare_with_run(
    account: NudgescribeAccount,
    campaign: CampaignRef,
    validated: Validated,
    lake: DataLake,
    refresh: Refresh,
) -> Preview:
    """How the list compares with the run before. What was found once is kept for the refresh's
    retries. Raises ListRefused if the list lacks a variable of the campaign.
    """

    def find_out() -> Preview:
        with (
            account.get_client() as client,
            local_copy(lake, validated.accepted) as file,
        ):
            earlier = segments_before(client, campaign)
            sizes = sizes_of(file, variables_of(earlier))
            compared = segments.compare(earlier, (segment for segment, _ in sizes))
            new = {segments.key(segment) for segment in compared.new}
            return Preview(
                matched=len(compared.matched),
                new=len(compared.new),
                orphaned=len(compared.orphaned),
                customers_in_new=sum(n for segment, n in sizes if segments.key(segment) in new),
                before=customers_before(client, campaign),
            )

    return noted(lake, f"{folder_of(refresh)}/compared.json", Preview, find_out)


def segments_before(client: NudgescribeClient, campaign: CampaignRef) -> list[Segment]:
    """Those of the campaign's current run."""
    messages = client.rerun_messages(campaign.campaign_id, campaign.previous_run)
    return [message.segment for message in messages]


def variables_of(of: Sequence[Segment]) -> list[str]:
    return sorted({name for segment in of for name in segment})


def sizes_of(listed: Path, variables: Sequence[str]) -> list[tuple[Segment, int]]:
    """The list's segments with their customers. Raises ListRefused."""
    frame = pl.scan_parquet(listed)
    missing = [name for name in variables if name not in frame.collect_schema()]
    if missing:
        raise ListRefused(
            f"The list has no column for the campaign's variables {', '.join(missing)}."
        )
    return segments.count(frame, variables)


def customers_before(client: NudgescribeClient, campaign: CampaignRef) -> int | None:
    """How many customers the group of the campaign's current run has; None if it is gone."""
    if campaign.previous_group is None:
        return None
    try:
        return client.count_customers(campaign.workspace_id, campaign.previous_group).total
    except NotFound:
        return None
