"""The identity of a refresh, or of another flow's run, and the entries that both write."""

import re
from datetime import datetime
from typing import Any, Self

from pydantic import Field

from nudgescribe import contract
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError, Retryable
from tasks.journal.owners import Owner

STAGING = "staging"
JOURNALS = "journals"
REFRESHES = "refreshes"
FLOW_RUN = 36
"""Characters of a flow run's id, which the id of a refresh begins with."""
_MARK = re.compile(r"Nudgeflow refresh ([\w-]+)(?:, of a group reused(?:: (\S+))?)?")


class Refresh(Frozen):
    """The identity of a refresh, or of another flow's run that has a journal.

    `id` is that of the flow run that began it, with a number appended unless it is the campaign's
    first; `started` is that flow run's planned start; `journal` is its folder in the lake, and
    `partition` that of its campaign where the journal does not tell it.
    """

    id: str = Field(pattern=r"^[\w-]+$")
    started: datetime
    journal: str = Field(default="", exclude=True)
    partition: str = Field(default="", exclude=True)

    @property
    def staging(self) -> str:
        """Return the folder of the lake that holds its customer list while it runs."""
        return f"{STAGING}/{self.id}"

    def marker(self, *, reused: bool) -> str:
        """Return the description of its customer group; a reused group is none that retention may
        delete, and others leave it alone until the journal that it names has ended.
        """
        mark = f"Nudgeflow refresh {self.id}"
        return f"{mark}, of a group reused: {self.journal}" if reused else mark

    @property
    def markers(self) -> list[str]:
        """Return the descriptions that its customer group may have."""
        return [self.marker(reused=reused) for reused in (False, True)]

    def owns(self, group: contract.CustomerGroup) -> bool:
        """Return whether this refresh made or reused the group."""
        holder = Holder.of(group)
        return holder is not None and holder.refresh == self.id

    @property
    def short(self) -> str:
        """Return enough of the id to tell two refreshes of the same minute apart."""
        return self.id[:8] + self.id[FLOW_RUN:]


class Holder(Frozen):
    """The refresh whose mark a customer group carries, and its journal if the group is reused."""

    refresh: str
    journal: str = ""

    @classmethod
    def of(cls, group: contract.CustomerGroup) -> Self | None:
        """Return the holder of a group, None without a mark of ours."""
        mark = _MARK.fullmatch(group.description or "")
        return cls(refresh=mark[1], journal=mark[2] or "") if mark else None

    @property
    def number(self) -> int:
        """Return the number of the refresh among those of its campaign, which its id tells."""
        before = self.refresh[FLOW_RUN + 1 :]
        return int(before) + 1 if before.isdecimal() else 1

    def is_by_same_flow_run(self, refresh: Refresh) -> bool:
        """Return whether both refreshes were begun by the same flow run."""
        return self.refresh[:FLOW_RUN] == refresh.id[:FLOW_RUN]


class Claimed(Frozen):
    """The first entry: the refresh, the flow run that began it, where its list comes from. A flow
    run that is no refresh has the `partition` of its campaign here, if it is about one.
    """

    refresh: Refresh
    owner: Owner
    partition: str = ""
    crm: str = ""
    options: dict[str, Any] = Field(default={})


class Problem(Frozen):
    """What a flow run failed with, in the `attempt` of this owner, 0 for the one that began it; a
    retry may solve it.
    """

    attempt: int
    error: str
    problem: str
    retryable: bool

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return the entry about an error; of one that is none of ours only its name is told."""
        problem, retryable = "It was stopped, or met an error that is none of ours.", True
        if isinstance(error, NudgeflowError):
            problem, retryable = error.problem, isinstance(error, Retryable)
        return cls(attempt=0, error=type(error).__name__, problem=problem, retryable=retryable)
