"""The journal of a flow run that is no refresh: of a plan, a synchronisation, an export."""

from itertools import count

from prefect import task

from blocks import DataLake
from nudgescribe.bases import Frozen
from tasks.journal.entries import Journal, Step
from tasks.journal.owners import this_process
from tasks.journal.refresh import Claimed, Refresh
from tasks.policies import RETRIED


class FlowRunEnded(Frozen):
    """How a flow run ended: well, or with a problem."""

    problem: str = ""


@task(**RETRIED)
def open_journal(lake: DataLake, refresh: Refresh) -> Refresh:
    """Return the refresh with the journal that an earlier try has left half-way, or a new one."""
    for number in count(1):
        folder = refresh.journal if number == 1 else f"{refresh.journal}-{number}"
        journal = Journal(lake.files, folder)
        if Step.ENDED not in journal.contents().steps:
            journal.create(Step.CLAIMED, Claimed(refresh=refresh, owner=this_process(refresh.id)))
            return refresh.model_copy(update={"journal": folder})
    raise AssertionError


@task(**RETRIED)
def end_journal(lake: DataLake, refresh: Refresh, problem: str = "") -> None:
    """End the flow run's journal, and remove what it has in the lake's staging."""
    Journal(lake.files, refresh.journal).create(Step.ENDED, FlowRunEnded(problem=problem))
    lake.files.remove(refresh.staging)
