"""Compare a run's messages with those of the run before it in the lake."""

import re

from prefect import task
from prefect.logging import get_run_logger
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from blocks import DataLake
from blocks.storage.manifest import campaign_folder
from nudgescribe.errors import NudgeflowError, Retryable
from tasks.policies import READ

_RUN = re.compile(r"run_number=(\d+)")


class RunDiffSummary(BaseModel):
    """Count customers by what became of them and their message `since` an earlier run.

    `since` is None if the lake has no earlier one. All counts are 0 if there was a `problem` with
    the comparison. Results of version 0.1 lie in lakes with the names of that time.
    """

    model_config = ConfigDict(frozen=True)

    since: int | None = None
    added: int = 0
    removed: int = Field(default=0, validation_alias=AliasChoices("removed", "gone"))
    changed: int = 0
    unchanged: int = Field(default=0, validation_alias=AliasChoices("unchanged", "same"))
    problem: str | None = None

    @property
    def in_both(self) -> int:
        """Customers in both runs."""
        return self.changed + self.unchanged

    @property
    def compared(self) -> bool:
        return self.since is not None and self.problem is None


@task(**READ)
def compare_messages(lake: DataLake, campaign_id: str, run_number: int) -> RunDiffSummary:
    """Compare a run in the lake with the newest one before it there.

    Raises nothing but LakeUnreachable: what lies in the lake is good, whatever is found here.
    """
    since = None
    try:
        since = _run_before(lake, campaign_id, run_number)
        if since is None:
            return RunDiffSummary()
        diff = lake.diff(campaign_id, since, run_number)
    except Retryable:
        raise
    except Exception as error:
        # Libraries quote what they were reading.
        problem = error.problem if isinstance(error, NudgeflowError) else type(error).__name__
        get_run_logger().warning("Run %s could not be compared: %s", run_number, problem)
        return RunDiffSummary(since=since, problem=problem)
    found = RunDiffSummary(
        since=since,
        added=diff.added,
        removed=diff.removed,
        changed=diff.changed,
        unchanged=diff.unchanged,
    )
    changed, both = f"{found.changed:,}", f"{found.in_both:,}"
    get_run_logger().info("Since run %s, %s of %s messages changed", since, changed, both)
    return found


def _run_before(lake: DataLake, campaign_id: str, run_number: int) -> int | None:
    names = map(_RUN.fullmatch, lake.files.list_names(campaign_folder(campaign_id)))
    numbers = sorted((int(name[1]) for name in names if name), reverse=True)
    earlier = (number for number in numbers if number < run_number)
    return next((number for number in earlier if lake.manifest(campaign_id, number)), None)
