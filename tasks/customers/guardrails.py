"""Safety limits that a customer list must keep to before anything is changed for it."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from nudgescribe.errors import NudgeflowError


class GuardrailHit(NudgeflowError):
    advice = (
        "Nothing was changed at Nudgescribe. Look at the CRM's list; if it is right, raise the "
        "limit in options.guardrails and start again."
    )


class TooFewRows(GuardrailHit): ...


class TooManyRejected(GuardrailHit): ...


class ShrunkTooMuch(GuardrailHit): ...


class GrownTooMuch(GuardrailHit): ...


class TooManyNewSegments(GuardrailHit): ...


class TooManyOrphanedSegments(GuardrailHit): ...


class ListCounts(BaseModel):
    """Describe a list; `before` is the size of the group it replaces, if there is one."""

    model_config = ConfigDict(frozen=True)

    rows: int
    rejected: int
    before: int | None
    quarantine: str | None
    new_segments: int
    orphaned_segments: int


class ListGuardrails(BaseModel):
    """Limits for a customer list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        good, rejected, before = counts.rows, counts.rejected, counts.before
        see = f" See {counts.quarantine} in the lake." if counts.quarantine else ""
        if rejected > self.max_rejected * (good + rejected):
            yield TooManyRejected(
                f"{rejected:,} of {good + rejected:,} rows were rejected, over "
                f"{self.max_rejected:.1%}.{see}"
            )
        if good < self.min_rows:
            yield TooFewRows(f"The list has {good:,} good rows, fewer than {self.min_rows:,}.{see}")
        if before and before - good > self.max_shrink * before:
            yield ShrunkTooMuch(
                f"The list has {good:,} customers after {before:,}: it shrank by more than "
                f"{self.max_shrink:.1%}."
            )
        if before and good - before > self.max_growth * before:
            yield GrownTooMuch(
                f"The list has {good:,} customers after {before:,}: it grew by more than "
                f"{self.max_growth:.1%}."
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
                f"The list has {new:,} new segments, more than {self.max_new_segments:,}."
            )
        if orphaned > self.max_orphaned_segments:
            yield TooManyOrphanedSegments(
                f"{orphaned:,} segments would be left without customers, more than "
                f"{self.max_orphaned_segments:,}."
            )
