"""The journal of every flow that is no refresh: a begin, an end, and what went wrong in between."""

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.settings import PREFECT_API_URL, temporary_settings

import flows
from flows import customers, export, inventory, plan, portfolio, retention
from nudgescribe.errors import NudgeflowError
from tasks.journal.entries import Journal, Series, Step
from tasks.journal.flow_runs import FlowRunEnded
from tasks.journal.refresh import Problem
from tasks.portfolio import RefreshStatus
from tests import conftest
from tests.conftest import Company, Save, Saved
from tests.support.deployed import flow_run_of, retry, work
from tests.support.forks import run_in_fork

LIFE = re.compile(r"(00-claimed|99-ended|problem-\d+)\.json")


class Broken(NudgeflowError):
    """Of a step that fails."""


@dataclass(frozen=True)
class Journaled:
    """A flow, and a step of it that is broken within its journal."""

    module: ModuleType
    flow: Flow[..., Any]
    step: str
    parameters: Callable[[Company], dict[str, Any]]
    resumable: bool = True


def of_campaign(company: Company) -> dict[str, Any]:
    return {"campaign_id": company.seeded.campaign_id}


def of_group(company: Company) -> dict[str, Any]:
    return {"workspace_id": company.seeded.workspace_id, "group_name": "Everyone"}


def of_one_campaign(company: Company) -> dict[str, Any]:
    return {"campaigns": [of_campaign(company)]}


def without(company: Company) -> dict[str, Any]:
    return {}


FLOWS = [
    Journaled(plan, plan.plan_refresh, "find_campaign", of_campaign, resumable=False),
    Journaled(customers, customers.sync_customers, "find_group", of_group, resumable=False),
    Journaled(export, export.export_messages, "find_runs", of_campaign),
    Journaled(retention, retention.lake_retention, "list_candidates", without),
    Journaled(inventory, inventory.campaign_inventory, "report_inventory", without),
    Journaled(portfolio, portfolio.portfolio_refresh, "choose_campaigns", of_one_campaign),
]


def parameters_of(journaled: Journaled, company: Company, saved: Saved) -> dict[str, Any]:
    wanted = journaled.flow.parameters.properties
    blocks = {name: block for name, block in saved.references.items() if name in wanted}
    return {**blocks, **journaled.parameters(company)}


def journals(saved: Saved, flow: Flow[..., Any], run: UUID) -> dict[str, set[str]]:
    """What tells of the life of each of a flow run's journals, by the name of its folder."""
    found = (saved.root / "journals" / flow.name).glob(f"{run}*")
    return {
        folder.name.removeprefix(str(run)): {
            found[1] for file in folder.iterdir() if (found := LIFE.fullmatch(file.name))
        }
        for folder in found
    }


@pytest.fixture
def nothing_to_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A portfolio starts no flow runs."""
    monkeypatch.setattr(portfolio.Refreshes, "run", refreshed())


def refreshed(*ended: RefreshStatus) -> Callable[..., list[RefreshStatus]]:
    return lambda *_: list(ended)


def run_and_die(server: str, flows: str, flow: str, step: str, parameters: dict[str, Any]) -> None:
    """Runs a flow that is killed at a step."""
    module = import_module(flows)
    setattr(module, step, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with temporary_settings({PREFECT_API_URL: server}):
        getattr(module, flow)(**parameters)


@pytest.mark.usefixtures("nothing_to_refresh")
@pytest.mark.parametrize("journaled", FLOWS, ids=lambda one: one.flow.name)
def test_flow_ends_journal_when_killed_and_failed_before(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch, journaled: Journaled
) -> None:
    saved, flow = save(company, conftest.customers(300)), journaled.flow
    parameters = parameters_of(journaled, company, saved)
    names = journaled.module.__name__, flow.fn.__name__, journaled.step
    assert run_in_fork(run_and_die, PREFECT_API_URL.value(), *names, parameters) == -signal.SIGKILL
    run = flow_run_of(saved).id
    assert journals(saved, flow, run) == {"": {"00-claimed"}}

    def broken(*_: object, **__: object) -> None:
        raise Broken("Why.")

    with monkeypatch.context() as patched:
        patched.setattr(journaled.module, journaled.step, broken)
        retry(run)
        assert work(flow, run).is_failed()
    failed = {"00-claimed", "problem-0001"} | (set[str]() if journaled.resumable else {"99-ended"})
    assert journals(saved, flow, run) == {"": failed}
    journal = Journal(saved.lake.files, f"journals/{flow.name}/{run}")
    noted = Problem(attempt=0, error="Broken", problem="Why.", retryable=False)
    assert journal.newest(Series.PROBLEM, Problem) == (1, noted)
    ended = None if journaled.resumable else FlowRunEnded(problem="Why.")
    assert journal.find(Step.ENDED, FlowRunEnded) == ended

    retry(run)
    assert work(flow, run).is_completed()
    resumed = {"": {*failed, "99-ended"}}
    anew = {"": failed, "-2": {"00-claimed", "99-ended"}}
    assert journals(saved, flow, run) == (resumed if journaled.resumable else anew)
    last = Journal(saved.lake.files, journal.folder + ("" if journaled.resumable else "-2"))
    assert last.find(Step.ENDED, FlowRunEnded) == FlowRunEnded()
    assert not list((saved.root / "staging").glob("*"))


@pytest.mark.parametrize("journaled", FLOWS, ids=lambda one: one.flow.name)
@pytest.mark.usefixtures("nothing_to_refresh")
def test_flow_begins_and_ends_its_journal(
    company: Company, save: Save, journaled: Journaled
) -> None:
    saved, flow = save(company, conftest.customers(300)), journaled.flow
    flow(**parameters_of(journaled, company, saved))
    run = flow_run_of(saved).id
    assert journals(saved, flow, run) == {"": {"00-claimed", "99-ended"}}


def test_portfolio_keeps_journal_open_while_campaigns_have_failed(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, flow = save(company, conftest.customers(1)), portfolio.portfolio_refresh
    failed = RefreshStatus(campaign_id="C", state="Failed", state_type="FAILED")
    with monkeypatch.context() as patched:
        patched.setattr(portfolio.Refreshes, "run", refreshed(failed))
        state = flow(**saved.blocks, campaigns=[{"campaign_id": "C"}], return_state=True)
    assert state.name == "PartlyFailed"
    run = flow_run_of(saved).id
    assert journals(saved, flow, run) == {"": {"00-claimed", "problem-0001"}}
    monkeypatch.setattr(portfolio.Refreshes, "run", refreshed())
    retry(run)
    assert work(flow, run).is_completed()
    assert journals(saved, flow, run) == {"": {"00-claimed", "problem-0001", "99-ended"}}


@pytest.mark.parametrize("module", [one.name for one in iter_modules(flows.__path__)])
def test_no_flow_lets_prefect_keep_its_result(module: str) -> None:
    declared = vars(import_module(f"flows.{module}")).values()
    results = [one.persist_result for one in declared if isinstance(one, Flow)]
    assert {*results} <= {False}
