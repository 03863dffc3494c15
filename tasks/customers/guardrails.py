"""Safety limits, checked before anything is changed at Nudgescribe."""

from collections.abc import Iterator

from pydantic import Field

from nudgescribe.bases import Frozen, FrozenInput
from nudgescribe.errors import NudgeflowError, counted


class GuardrailHit(NudgeflowError):
    """A list exceeds a safety limit."""

    advice = (
        "Nothing was changed at Nudgescribe. Look at the CRM's list; if it is right, raise the "
        "limit in options.guardrails and start again."
    )


class TooFewRows(GuardrailHit):
    """Fewer rows than `min_rows` were accepted."""


class TooManyRejected(GuardrailHit):
    """A larger share of rows than `max_rejected` was rejected."""


class ShrunkTooMuch(GuardrailHit):
    """The list shrank by a larger share than `max_shrink`."""


class GrownTooMuch(GuardrailHit):
    """The list grew by a larger share than `max_growth`."""


class TooManyNewSegments(GuardrailHit):
    """The list has more new segments than `max_new_segments`."""


class TooManyOrphanedSegments(GuardrailHit):
    """The list leaves more segments without customers than `max_orphaned_segments`."""


class ListCounts(Frozen):
    """A list in numbers: accepted and rejected rows, and those that keep the rules but are
    `left_out`; new and orphaned segments; `before` is the size of the group it replaces, None if
    there is none.
    """

    accepted: int
    rejected: int
    before: int | None
    quarantine: str | None
    new_segments: int
    orphaned_segments: int
    left_out: int = 0


class ListGuardrails(FrozenInput):
    """Limits for a customer list."""

    min_rows: int = Field(default=1, ge=1, description="Minimum accepted rows.")
    max_rejected: float = Field(
        default=0.05, ge=0, le=1, description="Maximum share of rejected rows."
    )
    max_shrink: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Maximum share of customers to lose since the last run.",
    )
    max_growth: float = Field(
        default=1.0,
        ge=0,
        description="Maximum growth since the last run (1 = +100 %).",
    )

    def hits(self, counts: ListCounts) -> Iterator[GuardrailHit]:
        """Yield an error for each limit that is exceeded."""
        accepted, rejected, before = counts.accepted, counts.rejected, counts.before
        rows = accepted + rejected + counts.left_out
        see = f" See {counts.quarantine} in the lake." if counts.quarantine else ""
        if rejected > self.max_rejected * rows:
            yield TooManyRejected(
                f"{rejected:,} of {rows:,} rows were rejected, more than {self.max_rejected:.1%}."
                f"{see}"
            )
        if accepted < self.min_rows:
            yield TooFewRows(
                f"{counted(accepted, 'row', 'was')} accepted, fewer than {self.min_rows:,}.{see}"
            )
        if before and before - accepted > self.max_shrink * before:
            yield ShrunkTooMuch(
                f"The list has {counted(accepted, 'customer')}, down from {before:,}: it shrank by "
                f"more than {self.max_shrink:.1%}."
            )
        if before and accepted - before > self.max_growth * before:
            yield GrownTooMuch(
                f"The list has {counted(accepted, 'customer')}, up from {before:,}: it grew by "
                f"more than {self.max_growth:.1%}."
            )

    def check(self, counts: ListCounts) -> None:
        """Raise the first of the errors that `hits` finds."""
        for hit in self.hits(counts):
            raise hit


class Guardrails(ListGuardrails):
    """Limits for a refresh."""

    max_new_segments: int = Field(
        default=100, ge=0, description="Maximum new segments (each needs a review)."
    )
    max_orphaned_segments: int = Field(
        default=100, ge=0, description="Maximum segments left without customers."
    )

    def hits(self, counts: ListCounts) -> Iterator[GuardrailHit]:
        yield from super().hits(counts)
        new, orphaned = counts.new_segments, counts.orphaned_segments
        if new > self.max_new_segments:
            yield TooManyNewSegments(
                f"The list has {counted(new, 'new segment')}, more than {self.max_new_segments:,}."
            )
        if orphaned > self.max_orphaned_segments:
            yield TooManyOrphanedSegments(
                f"{counted(orphaned, 'segment')} would be left without customers, more than "
                f"{self.max_orphaned_segments:,}."
            )
