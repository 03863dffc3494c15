"""The review of a rerun's new messages: looked at, and shown to whoever does it."""

import re

from prefect import task
from prefect.artifacts import create_markdown_artifact

from blocks import NudgescribeAccount
from nudgescribe import segments
from nudgescribe.contract import Run, Segment, SegmentMessage, Status
from nudgescribe.errors import NotFound
from tasks.campaigns import RunRef
from tasks.policies import NEVER_CACHED, READ
from tasks.refresh.started import Started
from tasks.ui.artifacts import artifact_key

MOST_SHOWN = 50
REVIEWED = (Status.READY_TO_PUBLISH, Status.PUBLISHED)


@task(**READ)
def read_history(account: NudgescribeAccount, campaign_id: str) -> list[Run]:
    """The campaign's runs as they are now, newest first."""
    with account.get_client() as client:
        return client.rerun_history(campaign_id)


def run_now(account: NudgescribeAccount, run: RunRef) -> Run:
    """A run as the campaign's history shows it now. Raises NotFound."""
    for each in read_history(account, run.campaign_id):
        if each.run_number == run.run_number:
            return each
    raise NotFound(f"Campaign {run.campaign_id} has no run {run.run_number}.")


@task(**NEVER_CACHED)
def show_review(account: NudgescribeAccount, started: Started) -> str:
    """What the reviewer is to look at, as a page in the UI and as its markdown."""
    campaign = started.campaign
    with account.get_client() as client:
        now = client.rerun_messages(campaign.campaign_id)
        before = client.rerun_messages(campaign.campaign_id, campaign.previous_run)
    page = _page(started, now, before, account.link_to(campaign.campaign_id))
    create_markdown_artifact(
        page,
        key=artifact_key("review", campaign.campaign_id),
        description=f"{campaign.name}, run {started.run.run_number}: new messages",
    )
    return page


def _page(
    started: Started, now: list[SegmentMessage], before: list[SegmentMessage], link: str | None
) -> str:
    campaign, expected = started.campaign, started.expected
    compared = segments.compare(_segments(before), _segments(now))
    texts = {segments.key(each.segment): each.message for each in now}
    new = [f"### {_name(each)}\n\n{_block(texts[segments.key(each)])}" for each in compared.new]
    gone = [f"- {_name(each)}" for each in compared.orphaned]
    where = f"[the campaign]({link})" if link else "the campaign's page in the platform"
    # On one line: the UI would break it where this file does.
    what_to_do = (
        f"Approve the new messages on {where}. The refresh goes on by itself when all of them are; "
        "it can also be resumed here, or stopped."
    )
    return f"""# {campaign.name}: run {started.run.run_number} waits for its review

{what_to_do}

| | |
|---|---:|
| customers in the list | {started.validated.accepted.rows:,} |
| customers in new segments | {expected.customers_in_new:,} |
| segments matched, message kept | {len(compared.matched):,} |
| segments new, message to review | {len(compared.new):,} |
| segments gone | {len(compared.orphaned):,} |

## New segments

{_some(new)}

## Segments gone

{_some(gone)}
"""


def _segments(messages: list[SegmentMessage]) -> list[Segment]:
    return [each.segment for each in messages]


def _name(segment: Segment) -> str:
    named = ", ".join(f"{name} = {value}" for name, value in segment.items())
    return f"`{named.replace('`', chr(39))}`"


def _block(text: str) -> str:
    """As it is, whatever it holds: a fence is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"


def _some(entries: list[str]) -> str:
    more = len(entries) - MOST_SHOWN
    shown = entries[:MOST_SHOWN] + ([f"… and {more:,} more."] if more > 0 else [])
    return "\n\n".join(shown) or "None."
