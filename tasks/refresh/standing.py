"""What the journal of a refresh holds, and where the refresh stands by it."""

from datetime import datetime
from typing import Literal, Self

from nudgescribe.bases import Frozen
from tasks.journal.owners import Owner
from tasks.journal.refresh import Problem, Refresh
from tasks.refresh.report import RefreshResult


class Review(Frozen):
    """A review with its deadline; without one, the end of the last review."""

    until: datetime | None = None


class Ended(Frozen):
    """How a refresh ended: completed, with its result; failed for good; abandoned by a person;
    released before anything was changed at Nudgescribe, with the last result if that still stands;
    or unreadable, which is never written: the entry that tells it is damaged. `error` names what
    it failed with.
    """

    outcome: Literal["completed", "failed", "abandoned", "released", "unreadable"]
    error: str = ""
    problem: str = ""
    result: RefreshResult | None = None

    @classmethod
    def by(cls, outcome: Literal["failed", "released"], problem: Problem) -> Self:
        """End with a problem."""
        return cls(outcome=outcome, error=problem.error, problem=problem.problem)


class Standing(Frozen):
    """Where a refresh stands, by its journal.

    `attempt` is the number of its newest owner, 0 for the one that began it. `kept` tells that its
    list has passed all checks, so that a later flow run continues it; `noted` that its newest
    owner has written down what it failed with, and `failed` that this does not pass by itself.
    """

    number: int
    refresh: Refresh
    owner: Owner | None = None
    attempt: int = 0
    kept: bool = False
    initiated: bool = False
    noted: bool = False
    failed: bool = False
    ended: Ended | None = None

    @property
    def must_be_continued(self) -> bool:
        """Return whether a later flow run has to continue it, instead of beginning anew.

        Before its rerun a refresh that failed is given up: its list would be an old one.
        """
        return self.initiated or (self.kept and not self.failed and not self.given_up)

    @property
    def given_up(self) -> bool:
        """Return whether its newest owner was about to end it, and to begin anew."""
        return self.owner is not None and self.owner.gives_up and not self.initiated

    @property
    def why_over(self) -> str:
        """Return a sentence on why the refresh is over, "" if there is nothing to tell."""
        if not (self.ended and self.ended.problem):
            return ""
        remedy = " If it is not, remove that file." if self.ended.outcome == "unreadable" else ""
        return f" The newest one is over: {self.ended.problem.rstrip('.')}.{remedy}"

    def begun_by(self, claimant: Refresh) -> bool:
        """Return whether the claimant's flow run began the refresh."""
        return self.refresh.id == claimant.id or self.refresh.id.startswith(f"{claimant.id}-")

    def belongs_to(self, claimant: Refresh) -> bool:
        """Return whether the claimant's flow run owns the refresh, or began it and it has ended."""
        owned = self.owner is not None and self.owner.flow_run == claimant.id
        return owned or (self.ended is not None and self.begun_by(claimant))
