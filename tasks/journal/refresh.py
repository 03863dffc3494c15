"""The identity of a refresh, or of another flow's run, and the first entry of its journal."""

from datetime import datetime
from typing import Any

from pydantic import Field

from nudgescribe import contract
from nudgescribe.bases import Frozen
from tasks.journal.owners import Owner

STAGING = "staging"


class Refresh(Frozen):
    """The identity of a refresh: the `id` of the flow run that began it, with a number appended
    unless it is the campaign's first; `started` is that flow run's planned start; `journal` is its
    folder in the lake.
    """

    id: str = Field(pattern=r"^[\w-]+$")
    started: datetime
    journal: str = Field(default="", exclude=True)

    @property
    def staging(self) -> str:
        """Return the folder of the lake that holds its customer list while it runs."""
        return f"{STAGING}/{self.id}"

    def marker(self, *, reused: bool) -> str:
        """Return the description of its customer group; a reused group is none that retention may
        delete.
        """
        return f"Nudgeflow refresh {self.id}" + (", of a group reused" if reused else "")

    def owns(self, group: contract.CustomerGroup) -> bool:
        """Tell whether this refresh made or reused the group."""
        return group.description in (self.marker(reused=False), self.marker(reused=True))

    @property
    def short(self) -> str:
        """Return enough of the id to tell two refreshes of the same minute apart."""
        return self.id[:8] + self.id[36:]

    def group_name(self, template: str, campaign: str) -> str:
        """Return the name of its customer group."""
        return template.format(campaign=campaign, run=self.started)


class Claimed(Frozen):
    """The first entry: the refresh, the flow run that began it, where its list comes from."""

    refresh: Refresh
    owner: Owner
    crm: str = ""
    options: dict[str, Any] = Field(default={})
