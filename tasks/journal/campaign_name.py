"""What a campaign is called, as its refreshes in the lake have found it."""

from contextlib import suppress

from blocks import DataLake
from blocks.storage.errors import LakeError, TooNew
from nudgescribe.bases import Frozen
from tasks.journal.entries import Journal, JournalDamaged, Step
from tasks.journal.refresh import REFRESHES
from tasks.ui.signals import is_named, name_flow_run

MOST_READ = 20
"""Refreshes that ended before they found their campaign, or are damaged, are passed over."""


class _Found(Frozen):
    name: str
    workspace: str = ""


def name_as_known(lake: DataLake, partition: str) -> str:
    """Return what the campaign of a `partition` was called last; "" if nobody knows.

    A flow run that has no campaign's name yet gets this one.
    """
    found = _find(lake, f"{REFRESHES}/{partition}")
    if found and not is_named():
        name_flow_run(found.name, found.workspace)
    return found.name if found else ""


def _find(lake: DataLake, folder: str) -> _Found | None:
    with suppress(LakeError):
        numbers = [name for name in lake.files.list_names(folder) if name.isdecimal()]
        for number in numbers[: -MOST_READ - 1 : -1]:
            with suppress(JournalDamaged, TooNew):
                if found := Journal(lake.files, f"{folder}/{number}").find(Step.FOUND, _Found):
                    return found
    return None
