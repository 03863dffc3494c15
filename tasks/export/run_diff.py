"""Comparison of a run's messages with those of the run before it in the lake."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger
from pydantic import AliasChoices, Field

from blocks import DataLake
from blocks.storage.manifest import campaign_folder, run_numbers
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError, Retryable
from nudgescribe.lazy import pl
from tasks.journal.history import record_changes
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED


class RunDiffSummary(Frozen):
    """The number of customers added, removed, and with their message changed or unchanged `since`
    an earlier run, which is None if the lake has none. All counts are 0 if the comparison failed
    with a `problem`. The aliases are for results that version 0.1 wrote to lakes.
    """

    since: int | None = None
    added: int = 0
    removed: int = Field(default=0, validation_alias=AliasChoices("removed", "gone"))
    changed: int = 0
    unchanged: int = Field(default=0, validation_alias=AliasChoices("unchanged", "same"))
    problem: str | None = None

    @property
    def in_both(self) -> int:
        """Return the number of customers in both runs."""
        return self.changed + self.unchanged

    @property
    def compared(self) -> bool:
        """Return whether there was an earlier run, and the comparison did not fail."""
        return self.since is not None and self.problem is None


@task(**RETRIED)
def compare_messages(
    lake: DataLake, campaign_id: str, run_number: int, refresh: Refresh | None = None
) -> RunDiffSummary:
    """Compare a run in the lake with the newest one before it there; write who was changed to the
    history of the `refresh`, unless there is none or it knows better.

    Raises LakeUnreachable. Any other error becomes the summary's `problem`: the run is complete,
    whether it can be compared or not.
    """
    since = None
    try:
        since = run_before(lake, campaign_id, run_number)
        if since is None:
            return RunDiffSummary()
        diff = lake.diff(campaign_id, since, run_number)
        if refresh:
            message = pl.when(pl.col("change") == "changed").then(pl.lit("message"))
            frames = (frame.with_columns(message.alias("field")) for frame in diff.frames())
            record_changes(lake, refresh, frames)
    except Retryable:
        raise
    except Exception as error:
        # Libraries quote what they were reading.
        problem = error.problem if isinstance(error, NudgeflowError) else type(error).__name__
        get_run_logger().warning("Run %s could not be compared: %s", run_number, problem)
        return RunDiffSummary(since=since, problem=problem)
    summary = RunDiffSummary(
        since=since,
        added=diff.added,
        removed=diff.removed,
        changed=diff.changed,
        unchanged=diff.unchanged,
    )
    changed, both = f"{summary.changed:,}", f"{summary.in_both:,}"
    get_run_logger().info("Since run %s, %s of %s messages changed", since, changed, both)
    return summary


def run_before(lake: DataLake, campaign_id: str, run_number: int) -> int | None:
    """Return the number of the newest run in the lake before this one, None if there is none."""
    numbers = run_numbers(lake.files.list_names(campaign_folder(campaign_id)))
    earlier = (number for number in numbers if number < run_number)
    return next((number for number in earlier if lake.manifest(campaign_id, number)), None)
