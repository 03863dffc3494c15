"""What starts flow runs by itself, schedules and triggers of deployments: on or off."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation

from deployments.project import Entry, full_name, parts
from deployments.server import find
from nudgescribe.errors import NudgeflowError, first_ten

REVIEWS = "resume-reviewed"
"""On from the start: without it a refresh that is awaiting review is never continued."""

RENAMED = {
    "campaign-refresh/monthly": "refresh-monthly",
    "campaign-refresh/when-loaded": "refresh-when-loaded",
    "campaign-refresh/ad-hoc": "refresh-now",
    "campaign-refresh/portfolio": "refresh-for-portfolio",
    "portfolio-refresh/monthly": "refresh-portfolio-monthly",
    "portfolio-refresh/ad-hoc": "refresh-portfolio-now",
    "resume-reviewed/every-five-minutes": "resume-reviewed",
    "publish-campaign/ad-hoc": "publish-campaign",
    "abandon-refresh/ad-hoc": "abandon-refresh",
    "plan-refresh/ad-hoc": "plan-refresh",
    "sync-customers/daily": "sync-customers-daily",
    "export-messages/ad-hoc": "export-messages",
    "erase-customers/ad-hoc": "erase-customers",
    "campaign-inventory/daily": "campaign-inventory-daily",
    "lake-retention/nightly": "lake-retention-nightly",
    "lake-retention/ad-hoc": "lake-retention-now",
}
"""The deployments that had other names once, by their full names, and what they are called now."""


class NotScheduled(NudgeflowError):
    """A deployment is not there, or has nothing to switch."""

    advice = "Nothing was changed. `nudgeflow schedule` shows what can be switched."


@dataclass(frozen=True)
class Switch:
    """A deployment of prefect.yaml with schedules or triggers; `on` is None if it is not there."""

    name: str
    on: bool | None


def find_present(
    client: SyncPrefectClient, entries: Iterable[Entry]
) -> dict[str, DeploymentResponse]:
    """Return the deployments as they are on the server, by their full names in prefect.yaml.

    One that had another name is taken for the same.
    """
    present = {full_name(entry): _find(client, entry) for entry in entries}
    return {name: there for name, there in present.items() if there}


def keep_states(
    client: SyncPrefectClient,
    entries: Iterable[Entry],
    present: Mapping[str, DeploymentResponse],
) -> None:
    """Set the schedules and triggers of prefect.yaml to the states they have on the server; new
    ones stay as they are.
    """
    for entry in entries:
        there = present.get(full_name(entry))
        states = _states(client, there, entry) if there else {}
        if there and there.paused:
            entry["paused"] = True  # Prefect's command would let it go on
        if not parts(entry, "schedules"):
            entry["schedules"] = None  # an empty list will soon remove those that people added
        for schedule in parts(entry, "schedules"):
            schedule["active"] = states.get(schedule.get("slug", ""), schedule.get("active", False))
        for trigger, known in zip(parts(entry, "triggers"), _trigger_names(entry), strict=True):
            trigger["enabled"] = states.get(known, trigger.get("enabled", False))


def restore_added(client: SyncPrefectClient, present: Mapping[str, DeploymentResponse]) -> None:
    """Add the schedules again that people had added on the server: Prefect's own command removes
    them where prefect.yaml has other schedules. Those of a prefect.yaml have slugs.
    """
    for name, before in present.items():
        now = client.read_deployment_by_name(name)
        there = [_as_new(each) for each in now.schedules]
        added = [_as_new(each) for each in before.schedules if each.slug is None]
        if lost := [each for each in added if each not in there]:
            client.create_deployment_schedules(now.id, lost)


def remove_unlisted(
    client: SyncPrefectClient, entries: Iterable[Entry], present: Mapping[str, DeploymentResponse]
) -> None:
    """Remove the schedules that prefect.yaml had once, of deployments that have none there now."""
    for entry in entries:
        there = present.get(full_name(entry))
        if there and not parts(entry, "schedules"):
            now = client.read_deployment_by_name(full_name(entry))
            for schedule in now.schedules:
                if schedule.slug:
                    client.delete_deployment_schedule(now.id, schedule.id)


def _as_new(schedule: DeploymentSchedule) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate.model_validate(
        schedule.model_dump(include={*DeploymentScheduleCreate.model_fields})
    )


def _find(client: SyncPrefectClient, entry: Entry) -> DeploymentResponse | None:
    name = full_name(entry)
    if there := find(client.read_deployment_by_name, name):
        return there
    old = {new: old for old, new in RENAMED.items()}.get(entry["name"], "")
    same_flow = old.partition("/")[0] == name.partition("/")[0]
    return find(client.read_deployment_by_name, old) if same_flow else None


def retire(client: SyncPrefectClient, entries: Iterable[Entry]) -> Iterator[str]:
    """Remove our deployments of old names whose successors are deployed; yield a line for each.

    One with an open flow run stays until the next time, switched off: without its deployment no
    worker could continue that flow run.
    """
    listed = {full_name(entry): entry for entry in entries}
    for old, new in RENAMED.items():
        successor = f"{old.partition('/')[0]}/{new}"
        if successor not in listed or old in listed:
            continue
        there = find(client.read_deployment_by_name, old)
        if there is None or there.entrypoint != listed[successor]["entrypoint"]:
            continue
        _switch(client, there, listed[successor], on=False)
        if _has_open_runs(client, there):
            yield f"{old}: has an open flow run; deploy again once it has ended, to remove it"
        else:
            for automation in _triggers(client, there, listed[successor]):
                client.delete_automation(automation.id)
            client.delete_deployment(there.id)
            yield f"{old}: removed, it is {successor} now"


def read_switches(client: SyncPrefectClient, entries: Iterable[Entry]) -> list[Switch]:
    """Return what can be switched on and off, in the order of prefect.yaml."""
    found: list[Switch] = []
    for entry in entries:
        if parts(entry, "schedules") or parts(entry, "triggers"):
            there = find(client.read_deployment_by_name, full_name(entry))
            on = there and not there.paused and any(_states(client, there, entry).values())
            found.append(Switch(str(entry["name"]), on))
    return found


def switch(
    client: SyncPrefectClient, entries: list[Entry], names: Iterable[str], *, on: bool
) -> None:
    """Switch deployments on or off, by their names in prefect.yaml.

    Raises NotScheduled before anything is changed.
    """
    can = {each.name for each in read_switches(client, entries) if each.on is not None}
    if unknown := sorted({*names} - can):
        raise NotScheduled(
            f"Nothing to switch is called {first_ten(unknown)}; deployed are: "
            f"{', '.join(sorted(can)) or 'none'}."
        )
    for entry in entries:
        if entry["name"] in names:
            _switch(client, client.read_deployment_by_name(full_name(entry)), entry, on=on)


def _switch(
    client: SyncPrefectClient, deployment: DeploymentResponse, entry: Entry, *, on: bool
) -> None:
    for schedule in deployment.schedules:
        client.update_deployment_schedule(deployment.id, schedule.id, active=on)
    for automation in _triggers(client, deployment, entry):
        change = client.resume_automation if on else client.pause_automation
        change(automation.id)
    if on and deployment.paused:
        client.resume_deployment(deployment.id)


def _states(
    client: SyncPrefectClient, deployment: DeploymentResponse, entry: Entry
) -> dict[str, bool]:
    """Return what is on of a deployment: its schedules by slug, its triggers by name."""
    return {
        **{each.slug: each.active for each in deployment.schedules if each.slug},
        **{each.name: each.enabled for each in _triggers(client, deployment, entry)},
    }


def _triggers(
    client: SyncPrefectClient, deployment: DeploymentResponse, entry: Entry
) -> list[Automation]:
    """Return the automations that the entry's triggers became; others may start it, too."""
    related = client.read_resource_related_automations(f"prefect.deployment.{deployment.id}")
    names = _trigger_names(entry)
    return [each for each in related if each.name in names]


def _trigger_names(entry: Entry) -> list[str]:
    """Return the names of the triggers' automations, by default those that Prefect gives them."""
    triggers = enumerate(parts(entry, "triggers"), start=1)
    return [each.get("name", f"{entry['name']}__automation_{n}") for n, each in triggers]


def _has_open_runs(client: SyncPrefectClient, deployment: DeploymentResponse) -> bool:
    # Those that its schedule had planned are gone since it was switched off.
    over = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=[*TERMINAL_STATES]))
    of_it = FlowRunFilterDeploymentId(any_=[deployment.id])
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=over, deployment_id=of_it), limit=1
    )
    return bool(runs)
