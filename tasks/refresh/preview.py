"""Preview of a rerun: the list compared with the campaign's current run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from blocks import DataLake, NudgescribeAccount
from nudgescribe import segments
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Segment
from nudgescribe.errors import NotFound, first_ten
from nudgescribe.lazy import pl
from tasks.campaigns import CampaignRef
from tasks.customers.split import ListRefused
from tasks.customers.staging import local_copy
from tasks.customers.validate import Validated
from tasks.policies import RETRIED


class Preview(Frozen):
    """The number of segments that a rerun will match, add and orphan, and of customers in new
    ones. `before` is the size of the current run's customer group, None if that is deleted.
    """

    matched: int
    new: int
    orphaned: int
    customers_in_new: int
    before: int | None


@task(**RETRIED)
def compare_with_run(
    account: NudgescribeAccount,
    campaign: CampaignRef,
    validated: Validated,
    lake: DataLake,
) -> Preview:
    """Compare the list with the campaign's current run.

    Raises ListRefused if the list lacks a variable of the campaign.
    """
    with account.get_client() as client, local_copy(lake, validated.accepted) as file:
        earlier = segments_before(client, campaign)
        sizes = segment_sizes(file, variables_of(earlier))
        compared = segments.compare(earlier, (segment for segment, _ in sizes))
        new = {segments.key(segment) for segment in compared.new}
        return Preview(
            matched=len(compared.matched),
            new=len(compared.new),
            orphaned=len(compared.orphaned),
            customers_in_new=sum(n for segment, n in sizes if segments.key(segment) in new),
            before=customers_before(client, campaign),
        )


def segments_before(client: NudgescribeClient, campaign: CampaignRef) -> list[Segment]:
    """Return the segments of the campaign's current run."""
    messages = client.rerun_messages(campaign.campaign_id, campaign.previous_run)
    return [message.segment for message in messages]


def variables_of(of: Sequence[Segment]) -> list[str]:
    """Return the names of the segments' variables, sorted."""
    return sorted({name for segment in of for name in segment})


def segment_sizes(listed: Path, variables: Sequence[str]) -> list[tuple[Segment, int]]:
    """Return the list's segments with the number of their customers.

    Raises ListRefused if the list lacks one of the variables.
    """
    frame = pl.scan_parquet(listed)
    missing = [name for name in variables if name not in frame.collect_schema()]
    if missing:
        raise ListRefused(
            f"The list has no column for the campaign's variables {first_ten(missing)}."
        )
    return segments.count(frame, variables)


def customers_before(client: NudgescribeClient, campaign: CampaignRef) -> int | None:
    """Return the size of the current run's customer group; None if it is deleted."""
    if campaign.previous_group is None:
        return None
    try:
        return client.count_customers(campaign.workspace_id, campaign.previous_group).total
    except NotFound:
        return None
