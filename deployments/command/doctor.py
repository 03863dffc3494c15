"""Look whether a refresh would find what it needs; every finding is good, or says what to do."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import get_current_settings
from rich.console import Console
from rich.text import Text

from blocks import CrmSource, DataLake, NudgescribeAccount
from blocks.saved import MAIN, BlockNotFound, describe_saved, list_saved, load_by_name
from blocks.storage.errors import LakeError
from deployments import settings
from deployments.project import (
    CAMPAIGN,
    DEPLOYMENTS,
    Entry,
    NoProject,
    NoServer,
    full_name,
    read_config,
)
from deployments.schedules import REVIEWS, Switch, read_switches
from deployments.server import POOL, check_answer, find, open_client
from nudgescribe.contract import Status
from nudgescribe.errors import NudgeflowError, counted, first_ten, translate_foreign_errors
from nudgescribe.reach import SECONDS, within

B = TypeVar("B", NudgescribeAccount, CrmSource, DataLake)
T = TypeVar("T")

PLANNED = "refresh-now"
"""The deployment whose blocks are looked at."""
WORKSPACE = "NUDGEFLOW_WORKSPACE_ID"


class NotWell(NudgeflowError):
    """Something is missing or wrong, and the problem says what to do."""


@dataclass(frozen=True)
class Finding:
    """What is the matter with one thing; `good` if nothing is to be done."""

    subject: str
    good: bool
    said: str


def show(findings: Iterable[Finding]) -> bool:
    """Print the findings as they come, and return whether all are good."""
    console = Console(highlight=False)
    well = True
    for finding in findings:
        well &= finding.good
        mark = Text("   ok", "green") if finding.good else Text("to do", "bold red")
        console.print(mark, f" {finding.subject}: {finding.said}", sep="", soft_wrap=True)
    return well


def examine(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each thing that a refresh needs, in the order it needs them."""
    chosen = None
    try:
        chosen = settings.read(environment)
    except NudgeflowError as error:
        yield Finding("variables", False, error.problem)
    # Without an address Prefect would start a server of its own.
    with open_client() if get_current_settings().api.url else nullcontext() as client:
        server = _look("server", lambda: _check_server(client))
        yield server
        there = client if server.good else None
        yield from _examine_project(there, chosen, environment)
        if there:
            yield _look("work pool", lambda: _check_pool(there))
            yield _look("worker", lambda: _check_worker(there))


def _examine_project(
    client: SyncPrefectClient | None,
    chosen: settings.Settings | None,
    environment: Mapping[str, str],
) -> Iterator[Finding]:
    """Yield the findings about prefect.yaml and what it names."""
    try:
        entries: list[Entry] = read_config()["deployments"]
    except NoProject as error:
        yield Finding("project", False, str(error))
        return
    known = counted(len(entries), "deployment")
    yield Finding("project", True, f"{DEPLOYMENTS} has {known}")
    project = _Project(client, chosen, entries)
    yield from _campaign(project, environment)
    yield _look("customer list", lambda: _read_list(project))
    yield _look("lake", lambda: _try_lake(project))
    if client:
        deployments = _look("deployments", lambda: _check_deployments(client, entries))
        yield deployments
        if deployments.good:
            yield _look("schedules", lambda: _check_schedules(client, entries))


def _look(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, check())
    except NudgeflowError as error:
        return Finding(subject, False, str(error))
    except httpx.HTTPError as error:
        said = (
            f"Prefect's server has not answered well: {type(error).__name__}. Look at its output."
        )
        return Finding(subject, False, said)


class _Project:
    """The blocks that prefect.yaml names, as they are saved, or as the variables have them."""

    def __init__(
        self,
        client: SyncPrefectClient | None,
        chosen: settings.Settings | None,
        entries: list[Entry],
    ) -> None:
        self._client, self._chosen, self._entries = client, chosen, entries

    def load(self, parameter: str, kind: type[B]) -> tuple[B, str]:
        """Return a block, and what to add about it. Raises NotWell."""
        slug = self.slug(parameter)
        if self._client:
            try:
                block = load_by_name(slug, kind)
            except BlockNotFound:
                pass
            else:
                if isinstance(block, kind):
                    return block, self._difference(slug, block)
                problem = f"prefect.yaml names {slug} as {parameter}, where it cannot stand."
                raise NotWell(f"{problem} {describe_saved(kind)} Name one of them there.")
        block = self._described(slug)
        if isinstance(block, kind):
            return block, " It is not saved yet: `nudgeflow bootstrap` does that."
        raise NotWell(self._missing(slug, kind))

    def slug(self, parameter: str) -> str:
        """Return the type and name of a block of the refresh, as prefect.yaml has it."""
        for entry in self._entries:
            if entry["name"] == PLANNED:
                try:
                    return str(entry["parameters"][parameter]["$ref"]["block_document_slug"])
                except (KeyError, TypeError):
                    break
        raise NotWell(
            f"prefect.yaml has no deployment {PLANNED} whose {parameter} is a block by its name: "
            f"look at the prefect.yaml that `nudgeflow init` writes."
        )

    def _described(self, slug: str) -> Block | None:
        """Return the block that the variables describe, if bootstrap saves it as `slug`."""
        for name, kind in settings.BLOCKS.items():
            if f"{kind.get_block_type_slug()}/{MAIN}" == slug:
                return getattr(self._chosen, name, None)
        return None

    def _difference(self, slug: str, saved: Block) -> str:
        described = self._described(slug)
        if described is None or dict(described) == dict(saved):
            return ""
        return " What .env describes differs from what is saved: `nudgeflow bootstrap` saves it."

    def _missing(self, slug: str, kind: type[Block]) -> str:
        if not self._client or not list_saved(kind):
            if self._chosen is None:
                return f"{slug} can be read from .env once the variables above are right."
            if not self._client:
                return f"prefect.yaml names {slug}, and .env does not describe it: fill it in."
            return f"{slug} is not saved: fill in .env, then run `nudgeflow bootstrap`."
        return (
            f"{slug} is not saved. {describe_saved(kind, slug)} Name one of them in "
            f"prefect.yaml, then run `nudgeflow deploy`."
        )


def _check_server(client: SyncPrefectClient | None) -> str:
    if client is None:
        raise NoServer("There is no PREFECT_API_URL.")
    return f"Prefect {check_answer(client)} at {client.api_url}"


def _campaign(project: _Project, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Sign in once, and look for the campaign and its workspace."""
    wanted = environment.get(CAMPAIGN, "")
    found: dict[str, tuple[str, str, Status | str]] = {}

    def sign_in() -> str:
        account, note = project.load("account", NudgescribeAccount)
        for workspace in account.check():
            for each in workspace.campaigns:
                found[each.campaign_id] = workspace.workspace_id, each.name, each.status
        return f"signed in at {account.base_url}; {counted(len(found), 'campaign')}.{note}"

    def find_campaign() -> str:
        if wanted not in found:
            known = first_ten(f"{name} {campaign}" for campaign, (_, name, _) in found.items())
            problem = f"There is no campaign {wanted}." if wanted else f"{CAMPAIGN} is not set."
            raise NotWell(f"{problem} Set it in .env. There are: {known or 'none'}.")
        _, name, status = found[wanted]
        return f"{name}, {status}"

    def find_workspace() -> str:
        workspace, given = found[wanted][0], environment.get(WORKSPACE)
        if given != workspace:
            raise NotWell(f"Set {WORKSPACE}={workspace} in .env: it is the campaign's workspace.")
        return workspace

    account = _look("account", sign_in)
    yield account
    if account.good:
        yield _look("campaign", find_campaign)
    if wanted in found:
        yield _look("workspace", find_workspace)


def _read_list(project: _Project) -> str:
    source, note = project.load("crm", CrmSource)
    source.check_reachable()
    names = _in_time(source.block_slug, lambda: _first_columns(source))
    return f"{project.slug('crm')}: the first row has the columns {names}.{note}"


def _first_columns(source: CrmSource) -> str:
    with translate_foreign_errors(source.block_slug, NotWell):
        batches = source.batches(None)
        first = next((batch for batch in batches if batch.num_rows), None)
        if isinstance(batches, Generator):
            batches.close()
    if first is None:
        raise NotWell("The list has no rows: correct the block's query or path.")
    return first_ten(first.schema.names)


def _try_lake(project: _Project) -> str:
    lake, note = project.load("lake", DataLake)
    lake.check_reachable()
    _in_time(lake.root, lambda: _write_and_remove(lake))
    return f"{lake.files.root}: a file was written and removed.{note}"


def _write_and_remove(lake: DataLake) -> None:
    path = f"doctor-{uuid4().hex}"
    try:
        lake.files.create(path, b"Written by `nudgeflow doctor`, which removes it.")
        lake.files.remove(path)
    except LakeError as error:
        raise NotWell(f"{lake.root}: {error}") from None


def _in_time(what: str, check: Callable[[], T]) -> T:
    """Return what a check returns. Raises NotWell if it takes longer than people wait."""
    try:
        return within(SECONDS, check)
    except TimeoutError:
        raise NotWell(
            f"{what} has not answered within {SECONDS:g} seconds. Correct the block's address, or "
            "see that the server runs and that this machine may reach it."
        ) from None


def _check_deployments(client: SyncPrefectClient, entries: list[Entry]) -> str:
    pools = {entry.get("work_pool", {}).get("name", POOL) for entry in entries} - {POOL}
    if unknown := sorted(name for name in pools if find(client.read_work_pool, name) is None):
        raise NotWell(
            f"prefect.yaml names work pools that do not exist: {first_ten(unknown)}. Correct it; "
            f"`nudgeflow bootstrap` makes {POOL}."
        )
    names = [full_name(entry) for entry in entries]
    missing = [name for name in names if find(client.read_deployment_by_name, name) is None]
    if missing:
        raise NotWell(f"Not deployed: {first_ten(missing)}. Run `nudgeflow deploy`.")
    return f"all {len(names)} are there"


def _check_schedules(client: SyncPrefectClient, entries: list[Entry]) -> str:
    switches = read_switches(client, entries)
    if any(each == Switch(REVIEWS, on=False) for each in switches):
        raise NotWell(
            f"{REVIEWS} is off, so nobody continues a refresh after its review: "
            f"`nudgeflow schedule on {REVIEWS}`."
        )
    on = ", ".join(each.name for each in switches if each.on)
    off = ", ".join(each.name for each in switches if not each.on)
    return f"on: {on or 'none'}; off: {off or 'none'}"


def _check_pool(client: SyncPrefectClient) -> str:
    pool = find(client.read_work_pool, POOL)
    if pool is None:
        raise NotWell(f"There is no work pool {POOL}: `nudgeflow bootstrap` makes it.")
    if pool.is_paused:
        raise NotWell(f"{POOL} is paused: `prefect work-pool resume {POOL}`.")
    return f"{POOL}, of type {pool.type}"


def _check_worker(client: SyncPrefectClient) -> str:
    there = client.read_workers_for_work_pool(POOL) if find(client.read_work_pool, POOL) else []
    online = sum(each.status == "ONLINE" for each in there)
    if not online:
        raise NotWell(
            f"None is running, so flow runs wait: `prefect worker start --pool {POOL}`, in a "
            f"terminal of its own."
        )
    return f"{online} running"
