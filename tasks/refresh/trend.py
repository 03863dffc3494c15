"""The last runs of a campaign, as its reports show them."""

from __future__ import annotations

from typing import Any

from prefect.logging import get_run_logger

from blocks import DataLake
from blocks.storage.errors import LakeError
from blocks.storage.history import read_newest_runs
from nudgescribe.bases import Frozen
from nudgescribe.errors import Retryable
from nudgescribe.lazy import pl
from tasks.ui.charts import stacked_bars
from tasks.ui.markdown import table

RUNS = 12
REFRESHES_READ = 3 * RUNS
"""Some of the refreshes before may have come to no run."""


class Past(Frozen):
    """A run with its messages; those compared with the run `since` add up to them, if they were."""

    run_number: int
    messages: int
    unchanged: int | None = None
    changed: int | None = None
    added: int | None = None
    removed: int | None = None
    new_segments: int | None = None
    since: int | None = None

    def parts(self) -> dict[str, int]:
        """Return what its messages are made of: always the same parts, for the same colours."""
        return {
            "not compared": self.messages if self.unchanged is None else 0,
            "unchanged": self.unchanged or 0,
            "changed": self.changed or 0,
            "added": self.added or 0,
        }


def last_runs(lake: DataLake, campaign_id: str, now: Past) -> list[Past]:
    """Return the campaign's last runs, the oldest first and `now` the last one.

    A run that no refresh has made is known by what the first one was compared with.
    """
    earlier = [run for run in _recorded(lake, campaign_id) if run.run_number < now.run_number]
    runs = [*earlier, now]
    first = runs[0]
    if first.since is not None and first.unchanged is not None:
        customers = first.unchanged + (first.changed or 0) + (first.removed or 0)
        runs.insert(0, Past(run_number=first.since, messages=customers))
    return runs[-RUNS:]


def show_trend(runs: list[Past]) -> list[str]:
    """Return a section of a page, none for a single run."""
    if len(runs) < 2:
        return []
    numbers = ("messages", "changed", "added", "removed", "new_segments")
    rows = [
        (str(run.run_number), *(_number(getattr(run, name)) for name in numbers)) for run in runs
    ]
    head = ("run", *(name.replace("_", " ") for name in numbers))
    chart = stacked_bars({f"run {run.run_number}": run.parts() for run in runs})
    return [
        f"## The last {len(runs)} runs",
        chart.show("Messages of the last runs"),
        table("rrrrrr", head, rows),
    ]


def _recorded(lake: DataLake, campaign_id: str) -> list[Past]:
    try:
        rows = read_newest_runs(lake.files, campaign_id, REFRESHES_READ)
    except (LakeError, Retryable) as error:
        get_run_logger().warning("The report shows no earlier runs: %s", error.problem)
        return []
    whole = rows.filter(pl.col("outcome") == "completed", pl.col("rows").is_not_null())
    runs = {row["run_number"]: _past(row) for row in whole.to_dicts() if row["run_number"]}
    return [runs[number] for number in sorted(runs)]


def _past(row: dict[str, Any]) -> Past:
    is_compared = None not in (row["unchanged"], row["changed"], row["added"])
    compared = ("unchanged", "changed", "added", "removed") if is_compared else ()
    return Past(
        run_number=row["run_number"],
        messages=row["rows"],
        new_segments=row["new"],
        since=row["previous_run"],
        **{name: row[name] for name in compared},
    )


def _number(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
