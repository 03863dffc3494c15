"""The checkpoint of a refresh whose rerun has been initiated: retries continue from there."""

from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise

from prefect import task

from blocks import DataLake
from blocks.storage.errors import TooNew
from nudgescribe.bases import Frozen
from tasks.campaigns import CampaignRef, Published, RunRef
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export.run import RunInLake
from tasks.journal.entries import Journal, JournalDamaged, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.refresh.preview import Preview

_LAST_OF = {
    "extract and validate": Step.VALIDATED,
    "upload": Step.INITIATED,
    "rerun, review and publish": Step.PUBLISHED,
    "fetch": Step.COMMITTED,
}
"""The entry that ends each step that people are shown."""


class Checkpoint(Frozen):
    """The initiated run, and what led to it; `expected` is how the list compares with the previous
    run.
    """

    campaign: CampaignRef
    validated: Validated
    expected: Preview
    group: GroupRef
    run: RunRef


class Committed(Frozen):
    """The run in the lake; `erased` customers of the list have no message there, for they left the
    group before the export, and so have those who were `suppressed_since` its upload.
    """

    run: RunInLake
    erased: int
    suppressed_since: int = 0
    published_at: datetime


class FinishedSteps(Frozen):
    """The steps that a refresh has finished since its review."""

    published: Published | None
    committed: Committed | None


@task(**RETRIED)
def load_checkpoint(lake: DataLake, refresh: Refresh) -> Checkpoint | None:
    """Return the checkpoint of the refresh, None if its rerun has not been initiated."""
    return Journal(lake.files, refresh.journal).find(Step.INITIATED, Checkpoint)


@task(**RETRIED)
def load_preview(lake: DataLake, refresh: Refresh) -> Preview | None:
    """Return the preview of the refresh, None if its list has not passed all checks."""
    return Journal(lake.files, refresh.journal).find(Step.COMPARED, Preview)


@task(**RETRIED)
def save_preview(lake: DataLake, refresh: Refresh, preview: Preview) -> Preview:
    """Note that the list has passed all checks: from now on Nudgescribe is changed for it."""
    return Journal(lake.files, refresh.journal).add(Step.COMPARED, preview)


@task(**RETRIED)
def load_finished_steps(lake: DataLake, refresh: Refresh) -> FinishedSteps:
    """Return the steps that an earlier try of the refresh has finished since its review."""
    journal = Journal(lake.files, refresh.journal)
    return FinishedSteps(
        published=journal.find(Step.PUBLISHED, Published),
        committed=journal.find(Step.COMMITTED, Committed),
    )


@task(**RETRIED)
def save_committed(lake: DataLake, refresh: Refresh, committed: Committed) -> Committed:
    """Note that the run is in the lake."""
    return Journal(lake.files, refresh.journal).add(Step.COMMITTED, committed)


@task(**RETRIED)
def time_steps(lake: DataLake, refresh: Refresh) -> dict[str, float]:
    """Return how many seconds each step has taken since the refresh began, with all waits and
    whichever processes did it; none where the journal does not tell.
    """
    with suppress(JournalDamaged, TooNew):
        entries = Journal(lake.files, refresh.journal).entries()
        begun = {"begun": Step.CLAIMED}
        ends = {
            name: entries[step].written_at
            for name, step in (begun | _LAST_OF).items()
            if step in entries
        }
        ends["compare and hand over"] = datetime.now(UTC)
        return {
            name: round((end - before).total_seconds(), 2)
            for (_, before), (name, end) in pairwise(ends.items())
        }
    return {}
