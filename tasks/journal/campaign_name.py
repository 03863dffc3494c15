"""What a campaign is called, as its refreshes in the lake have found it."""

from contextlib import suppress

from blocks import DataLake
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import REFRESHES
from tasks.ui.signals import is_named, name_flow_run

MOST_READ = 5
"""Refreshes that ended before they found their campaign are passed over."""


class _Found(Frozen):
    name: str
    workspace: str = ""


def name_as_known(lake: DataLake, partition: str) -> str:
    """Name the flow run by the campaign of a `partition`, unless it has such a name, and return
    what the campaign was called last; "" if nobody knows.
    """
    folder = f"{REFRESHES}/{partition}"
    with suppress(NudgeflowError):
        numbers = [name for name in lake.files.list_names(folder) if name.isdecimal()]
        for number in numbers[: -MOST_READ - 1 : -1]:
            if found := Journal(lake.files, f"{folder}/{number}").find(Step.FOUND, _Found):
                if not is_named():
                    name_flow_run(found.name, found.workspace)
                return found.name
    return ""
