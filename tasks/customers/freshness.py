"""The age of a customer list: one that is too old, or of no known age, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field

from blocks import CrmSource, SourceError
from blocks.crm.list_file import ListFile
from blocks.crm.text import parse_time
from nudgescribe.bases import FrozenInput
from nudgescribe.errors import NudgeflowError, first_ten, translate_foreign_errors
from nudgescribe.lazy import pl
from nudgescribe.retry import PollPolicy, poll

POLL_POLICY = PollPolicy(first_wait=15, longest_wait=300)
ROWS_READ = 50_000
CLOCKS_DIFFER = timedelta(minutes=15)
"""At most: what is further in the future is no time at which a list was brought up to date."""


class StaleList(NudgeflowError):
    """A customer list is older than `max_age`."""

    advice = (
        "Nothing was changed at Nudgescribe. Have the list brought up to date, then start again; "
        "or raise options.max_age."
    )


class AgeUnknown(StaleList):
    """Nothing tells how old a customer list is."""

    advice = (
        "Nothing was changed at Nudgescribe. State updated_query in the SQL CRM block, or the "
        "column of a time in options.max_age, then start again."
    )


class StagedListStale(StaleList):
    """A refresh that goes on had extracted its list longer ago than `max_age`."""

    advice = (
        "No rerun was started. Start a new refresh: it extracts a list of its own. A customer "
        "group that this one has created stays unused."
    )


class MaxAge(FrozenInput):
    """How old a customer list may be, and what tells its time."""

    hours: float = Field(gt=0, description="Maximum age of the list, in hours.")
    column: str | None = Field(
        default=None,
        description="Column of times, of which the newest one is the list's. By default the source "
        "provides the time: updated_query of a SQL CRM, the oldest file's time of a file CRM.",
    )
    wait_minutes: float = Field(
        default=0, ge=0, description="Maximum wait for a list that is not too old, in minutes."
    )

    def check(self, source: str, at: datetime | None) -> None:
        """Raise StaleList if a list of this time is too old, AgeUnknown without one, or for one
        that is yet to come.
        """
        if at is None:
            raise AgeUnknown(f"{source} does not tell when its list was brought up to date.")
        age = datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))
        hours = age / timedelta(hours=1)
        if age < -CLOCKS_DIFFER:
            raise AgeUnknown(
                f"The time of the list of {source} is {-hours:,.1f} hours in the future: it may be "
                "a local time without its offset, or no time of an update."
            )
        if hours > self.hours:
            raise StaleList(
                f"The list of {source} is {hours:,.1f} hours old, more than {self.hours:g}."
            )

    def check_staged(self, at: datetime) -> None:
        """Raise StagedListStale if a list that was extracted at this time is too old by now."""
        if (hours := (datetime.now(UTC) - at) / timedelta(hours=1)) > self.hours:
            raise StagedListStale(
                f"The list of this refresh was extracted {hours:,.1f} hours ago, more than "
                f"{self.hours:g}."
            )

    def check_source(self, crm: CrmSource) -> None:
        """Check the time that the source tells, if that is what counts."""
        if self.column is None:
            with translate_foreign_errors(crm.block_slug, SourceError):
                at = crm.updated_at()
            self.check(crm.block_slug, at)

    def check_list(self, crm: CrmSource, file: Path) -> None:
        """Check the newest time in the extracted list, if that is what counts."""
        if self.column is None:
            return
        frames = ListFile(file).frames(ROWS_READ, [self.column])
        try:
            times = [max(map(parse_time, some)) for frame in frames if len(some := _texts(frame))]
        except ValueError:
            raise AgeUnknown(
                f"The column {first_ten([self.column])} of {crm.block_slug} holds what is no time "
                "in ISO 8601."
            ) from None
        self.check(crm.block_slug, max(times, default=None))

    def wait(self, extract: Callable[[], None]) -> None:
        """Call `extract`, again while it raises StaleList and there is time left."""

        def attempt() -> StaleList | None:
            try:
                extract()
            except AgeUnknown:
                raise
            except StaleList as error:
                return error
            return None

        stale: StaleList | None = None
        for stale in poll(attempt, self.wait_minutes * 60, POLL_POLICY):
            if stale is None:
                return
        assert stale
        raise stale


def _texts(frame: pl.DataFrame) -> pl.Series:
    """Return the texts of a frame's only column that are not blank, each once."""
    texts = frame.to_series().unique()
    return texts.filter(texts.str.strip_chars() != "")
