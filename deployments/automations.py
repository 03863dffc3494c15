"""What Prefect's server watches over, and what it does then."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from deployments.server import Outcome

REVIEW = timedelta(days=3)
LIMBO = timedelta(hours=1)
SILENCE = timedelta(minutes=15)
"""Five heartbeats. Those of a while in which Prefect's server cannot be reached are lost."""
REMINDER = timedelta(hours=6)

UNRESPONSIVE = "Unresponsive"
IN_LIMBO = ("Submitting", "InfrastructurePending", "Pending", "Cancelling")
RUN, EVERY_STATE = "prefect.resource.id", "prefect.flow-run.*"
STATE = "prefect.state-type"
DEPLOYMENT = "related:deployment:prefect.resource.id"

WHICH = "{{ flow.name }}, flow run {{ flow_run.name }}"
LINK = "{{ flow_run|ui_url or flow_run.id }}"


def notifying(
    block_id: UUID, refresh: timedelta, review: timedelta = REVIEW, limbo: timedelta = LIMBO
) -> list[AutomationCore]:
    """The automations that tell people, by the notification block of this id: of failures, of a
    `review` that takes longer, of flow runs in `limbo` for longer, and if a schedule brings no
    success for longer than `refresh`.
    """

    def tell(subject: str, body: str) -> list[ActionTypes]:
        text = f"{body}\n{LINK}"
        return [SendNotification(block_document_id=block_id, subject=subject, body=text)]

    failed = tell(
        "{{ flow.name }}: {{ event.resource['prefect.state-name'] }}",
        f"{WHICH}, ended as {{{{ event.resource['prefect.state-name'] }}}}.",
    )
    return [
        AutomationCore(
            name="Nudgeflow: a flow run failed",
            description="Whatever its state is named: Failed, ReviewOverdue, Crashed.",
            trigger=_failures("!resume-reviewed"),
            actions=failed,
        ),
        AutomationCore(
            name="Nudgeflow: reviews are not looked at",
            description="resume-reviewed failed; told once in some hours, since it runs often.",
            trigger=_failures("resume-reviewed", within=REMINDER),
            actions=failed,
        ),
        AutomationCore(
            name="Nudgeflow: a review waits",
            description="A refresh has been suspended for days.",
            trigger=_states(
                after={"prefect.flow-run.Suspended"},
                match_related=_ours("campaign-refresh"),
                posture=Posture.Proactive,
                within=review,
            ),
            actions=tell(
                "A review waits",
                f"{WHICH}, has waited for its review for {review.days} days.",
            ),
        ),
        AutomationCore(
            name="Nudgeflow: a flow run hangs",
            description="Its worker was lost as it began or cancelled it; no heartbeat tells that.",
            trigger=_states(
                after={f"prefect.flow-run.{state}" for state in IN_LIMBO},
                match_related=_ours(),
                posture=Posture.Proactive,
                within=limbo,
            ),
            actions=tell(
                "A flow run hangs",
                f"{WHICH}, was to begin or to be cancelled, and nothing has come of it.",
            ),
        ),
        AutomationCore(
            name="Nudgeflow: no refresh succeeds",
            description="A deployment's schedule has brought no finished refresh for long.",
            trigger=_states(
                # The first run that is due begins the wait, each success begins it anew.
                after={EVERY_STATE},
                expect={"prefect.flow-run.Completed", "prefect.flow-run.Joined"},
                match_related=[
                    *_ours("campaign-refresh", "portfolio-refresh"),
                    _tag("auto-scheduled"),
                ],
                for_each={DEPLOYMENT},
                posture=Posture.Proactive,
                within=refresh,
            ),
            actions=tell(
                "No refresh succeeds",
                f"{{{{ flow.name }}}}/{{{{ deployment.name }}}} has not finished as scheduled for "
                f"{refresh.days} days. Its latest flow run:",
            ),
        ),
    ]


def crashing(silence: timedelta = SILENCE) -> list[AutomationCore]:
    """The automations that end a flow run whose process is gone.

    Only a running flow run can be paused, so the server itself sees to it that no other one is
    crashed: a heartbeat may arrive after the news that its flow run was suspended.
    """
    silent = f"No heartbeat for {silence.total_seconds() / 60:g} minutes."
    return [
        AutomationCore(
            name="Nudgeflow: no heartbeat",
            description=f"A running flow run that is not heard of becomes {UNRESPONSIVE}.",
            trigger=_states(
                after={"prefect.flow-run.heartbeat", "prefect.flow-run.Running"},
                match=ResourceSpecification({RUN: EVERY_STATE}),
                match_related=_ours(),
                posture=Posture.Proactive,
                within=silence,
            ),
            actions=_become(StateType.PAUSED, UNRESPONSIVE, silent),
        ),
        AutomationCore(
            name="Nudgeflow: unresponsive flow runs crash",
            description="A retry or the next refresh of the campaign continues what they began.",
            trigger=_states(expect={f"prefect.flow-run.{UNRESPONSIVE}"}, match_related=_ours()),
            actions=_become(
                StateType.CRASHED,
                "Crashed",
                f"{silent} A retry or the next refresh of the campaign continues it.",
            ),
        ),
    ]


def upsert(client: SyncPrefectClient, wanted: AutomationCore) -> Outcome:
    """By name. One that a person has paused stays so; a changed one begins to count anew."""
    there = client.read_automations_by_name(wanted.name)
    if not there:
        client.create_automation(wanted)
        return "created"
    automation = there[0]
    wanted = wanted.model_copy(update={"enabled": automation.enabled})
    if AutomationCore.model_validate(automation.model_dump()) == wanted:
        return "unchanged"
    client.update_automation(automation.id, wanted)
    return "updated"


def _failures(flow: str, within: timedelta | None = None) -> EventTrigger:
    """Each, or one of a deployment `within` a time. Events are named for the state's name, which
    may be any; its type tells a failure.
    """
    return _states(
        match=ResourceSpecification({RUN: EVERY_STATE, STATE: ["FAILED", "CRASHED"]}),
        match_related=_ours(flow),
        **({"within": within, "for_each": {DEPLOYMENT}} if within else {}),
    )


def _states(**changes: Any) -> EventTrigger:
    """On states a flow run comes into; a heartbeat is none."""
    return EventTrigger.model_validate(
        {
            "expect": {EVERY_STATE},
            "match": ResourceSpecification({RUN: EVERY_STATE, STATE: "*"}),
            "for_each": {RUN},
            "posture": Posture.Reactive,
            **changes,
        }
    )


def _become(state: StateType, name: str, message: str) -> list[ActionTypes]:
    return [ChangeFlowRunState(state=state, name=name, message=message, force=False)]


def _ours(*flows: str) -> list[ResourceSpecification]:
    named = {"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}
    return [_tag("nudgescribe"), *([ResourceSpecification(named)] if flows else [])]


def _tag(name: str) -> ResourceSpecification:
    return ResourceSpecification({RUN: f"prefect.tag.{name}"})
