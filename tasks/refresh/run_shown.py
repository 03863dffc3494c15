"""What a report shows of a run's messages: its largest segments, and messages that read as sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import task
from prefect.logging import get_run_logger
from pydantic import Field

from blocks import DataLake, NudgescribeAccount
from nudgescribe import samples, segments
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Segment, SegmentMessage, WorkspaceField
from nudgescribe.errors import NudgeflowError
from tasks.customers.staging import local_copy
from tasks.policies import NEVER_CACHED
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.preview import segment_sizes, variables_of
from tasks.ui.markdown import QUOTING, plain, quote_text, shorten, table, with_share

MOST_SEGMENTS = 12
SAMPLES = 3


class SegmentSize(Frozen):
    """A segment of a run by its name, with the number of its customers."""

    name: str
    customers: int
    is_new: bool


class Sample(Frozen):
    """The message of a segment, as a made-up customer would get it."""

    segment: str
    message: str


class RunShown(Frozen):
    """The largest segments of a run, and a few of its messages."""

    segments: list[SegmentSize] = Field(default=[])
    samples: list[Sample] = Field(default=[])


@task(**NEVER_CACHED)
def look_at_run(account: NudgescribeAccount, lake: DataLake, checkpoint: Checkpoint) -> RunShown:
    """Return what the report shows of the run's messages. Nothing fails for it: without the list or
    the service there is less to see.
    """
    campaign, run = checkpoint.campaign, checkpoint.run
    try:
        with (
            account.get_client() as client,
            local_copy(lake, checkpoint.validated.accepted) as listed,
        ):
            messages = client.rerun_messages(campaign.campaign_id, run.run_number)
            before = client.rerun_messages(campaign.campaign_id, campaign.previous_run)
            of = [message.segment for message in messages]
            largest = _largest(segment_sizes(listed, variables_of(of)))
            new = {segments.key(one) for one in _new(before, messages)}
            return RunShown(
                segments=[
                    SegmentSize(
                        name=segment_name(one), customers=size, is_new=segments.key(one) in new
                    )
                    for one, size in largest
                ],
                samples=make_samples(
                    read_fields(client, campaign.workspace_id),
                    {segments.key(message.segment): message.message for message in messages},
                    [*_new(before, messages), *(segment for segment, _ in largest)],
                ),
            )
    except NudgeflowError as error:
        get_run_logger().warning("The report shows no messages: %s", error.problem)
        return RunShown()


def read_fields(client: NudgescribeClient, workspace_id: str) -> list[WorkspaceField]:
    """Return the workspace's fields, none if they cannot be had."""
    try:
        return client.list_fields(workspace_id)
    except NudgeflowError:
        return []


def make_samples(
    fields: Sequence[WorkspaceField],
    texts: Mapping[str, str],
    wanted: Sequence[Segment],
    most: int = SAMPLES,
) -> list[Sample]:
    """Return the messages of the first of these segments, each for another made-up customer;
    `texts` are those of the segments' keys.
    """
    once = {segments.key(segment): segment for segment in wanted}
    shown = [(texts[key], segment) for key, segment in once.items() if key in texts][:most]
    return [
        Sample(
            segment=segment_name(segment),
            message=samples.render(text, segment, samples.made_up(fields, number)),
        )
        for number, (text, segment) in enumerate(shown)
    ]


def show_run(shown: RunShown, accepted: int) -> list[str]:
    """Return the section of a page with segments and messages, none if there are none."""
    rows = [
        (shorten(one.name), "new" if one.is_new else "", with_share(one.customers, accepted))
        for one in shown.segments
    ]
    parts = [table("llr", ("largest segments", "", "customers"), rows)] if rows else []
    parts += show_samples(shown.samples)
    return [QUOTING, *parts] if parts else []


def show_samples(shown: Sequence[Sample]) -> list[str]:
    """Return messages as parts of a page, none if there are none."""
    texts = [f"**{plain(one.segment)}**\n\n{quote_text(one.message)}" for one in shown]
    return ["Messages as made-up customers would receive them:", *texts] if texts else []


def segment_name(segment: Segment) -> str:
    """Return a segment's values in words, in an order that is always the same."""
    return ", ".join(f"{name} = {value}" for name, value in sorted(segment.items()))


def _largest(sizes: list[tuple[Segment, int]]) -> list[tuple[Segment, int]]:
    return sorted(sizes, key=lambda each: each[1], reverse=True)[:MOST_SEGMENTS]


def _new(before: list[SegmentMessage], now: list[SegmentMessage]) -> tuple[Segment, ...]:
    earlier = (message.segment for message in before)
    return segments.compare(earlier, (message.segment for message in now)).new
