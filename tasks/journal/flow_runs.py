"""The journal of a flow run that is no refresh: of a plan, a synchronisation, an export."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import count

from prefect import task

from blocks import DataLake
from nudgescribe.bases import Frozen
from tasks.journal.campaign_name import name_as_known
from tasks.journal.entries import Journal, Series, Step
from tasks.journal.history import record
from tasks.journal.owners import this_process
from tasks.journal.refresh import Claimed, Problem, Refresh
from tasks.policies import RETRIED


class FlowRunEnded(Frozen):
    """How a flow run ended: well, or with a problem."""

    problem: str = ""


@contextmanager
def journaled(lake: DataLake, run: Refresh, *, resumable: bool) -> Generator[Refresh]:
    """Yield the flow run's identity with its journal, which ends with the block; what the block has
    staged is removed then.

    An error of the block is noted and raised. A `resumable` journal stays open for it: a retry goes
    on from what is written there. Another one ends, and a retry begins anew. A flow run that was
    killed has ended neither, so its retry goes on.
    """
    run = open_journal(lake, run)
    try:
        yield run
    except BaseException as error:
        problem = Problem.of(error)
        with suppress(Exception):
            note_problem(lake, run, problem)
            if not resumable:
                end_journal(lake, run, problem.problem)
            if run.partition:
                name_as_known(lake, run.partition)
        raise
    end_journal(lake, run)


@task(**RETRIED)
def open_journal(lake: DataLake, run: Refresh) -> Refresh:
    """Return its identity with the journal that an earlier try has left open, or a new one."""
    for number in count(1):
        folder = run.journal if number == 1 else f"{run.journal}-{number}"
        journal = Journal(lake.files, folder)
        if Step.ENDED not in journal.contents().steps:
            claimed = Claimed(refresh=run, owner=this_process(run.id), partition=run.partition)
            journal.create(Step.CLAIMED, claimed)
            return run.model_copy(update={"journal": folder})
    raise AssertionError


@task(**RETRIED)
def end_journal(lake: DataLake, run: Refresh, problem: str = "") -> None:
    """End the flow run's journal, write its row in the history, and remove what it has in the
    lake's staging.
    """
    ended = Journal(lake.files, run.journal).create(Step.ENDED, FlowRunEnded(problem=problem))
    record(lake.files, run.journal, count=ended and not problem)  # a problem is counted already
    lake.files.remove(run.staging)


@task(**RETRIED)
def note_problem(lake: DataLake, run: Refresh, problem: Problem) -> None:
    """Note in the flow run's journal, and in the history, what it has failed with."""
    Journal(lake.files, run.journal).append_next(Series.PROBLEM, problem)
    record(lake.files, run.journal, count=True)
