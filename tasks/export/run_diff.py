"""A run's messages against those of the run before it in the lake: how many are others."""

import re

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake
from blocks.storage.manifest import campaign_folder
from nudgescribe.errors import NudgeflowError, Passing
from tasks.policies import READ

_RUN = re.compile(r"run_number=(\d+)")


class Difference(BaseModel):
    """Customers by what became of them and their message `since` an earlier run, which is None if
    the lake has none; all zero if there was a `problem` with the comparison.
    """

    model_config = ConfigDict(frozen=True)

    since: int | None = None
    added: int = 0
    gone: int = 0
    changed: int = 0
    same: int = 0
    problem: str | None = None

    @property
    def stayed(self) -> int:
        """Customers in both runs."""
        return self.changed + self.same

    @property
    def compared(self) -> bool:
        return self.since is not None and self.problem is None


@task(**READ)
def compare_messages(lake: DataLake, campaign_id: str, run_number: int) -> Difference:
    """How a run in the lake differs from the newest one before it there.

    Raises nothing but LakeUnreachable: what lies in the lake is good, whatever is found here.
    """
    since = None
    try:
        since = _run_before(lake, campaign_id, run_number)
        if since is None:
            return Difference()
        diff = lake.diff(campaign_id, since, run_number)
    except Passing:
        raise
    except Exception as error:
        # Libraries quote what they were reading.
        problem = error.problem if isinstance(error, NudgeflowError) else type(error).__name__
        get_run_logger().warning("Run %s could not be compared: %s", run_number, problem)
        return Difference(since=since, problem=problem)
    found = Difference(
        since=since,
        added=diff.added,
        gone=diff.gone,
        changed=diff.changed,
        same=diff.unchanged,
    )
    changed, stayed = f"{found.changed:,}", f"{found.stayed:,}"
    get_run_logger().info("Since run %s, %s of %s messages changed", since, changed, stayed)
    return found


def _run_before(lake: DataLake, campaign_id: str, run_number: int) -> int | None:
    names = map(_RUN.fullmatch, lake.files.names(campaign_folder(campaign_id)))
    numbers = sorted((int(name[1]) for name in names if name), reverse=True)
    earlier = (number for number in numbers if number < run_number)
    return next((number for number in earlier if lake.manifest(campaign_id, number)), None)
