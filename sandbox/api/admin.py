"""Admin endpoints, which the real service does not have, or only in its platform.

They approve a run's messages, set a campaign's AI configuration and an account's quota, count what
is in flight and switch faults on. They need no sign-in, since the sandbox serves one machine.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from nudgescribe.contract import Text
from sandbox.context import context_of
from sandbox.data.lookup import fields_of
from sandbox.data.models import Account, Campaign
from sandbox.engine import reruns
from sandbox.errors import NOT_FOUND
from sandbox.middleware.faults import Fault, Faults
from sandbox.middleware.in_flight import InFlightCounts
from sandbox.writing import templates
from sandbox.writing.configuration import AiConfiguration

LOOPBACK = ("127.0.0.1", "localhost")

PathId = Annotated[str, Path(pattern=r"^[\w-]+$")]


def forbid_cross_origin(request: Request) -> None:
    """Check that a browser sends no call for the page of another site, under any host name.

    Raises HTTPException, 403.
    """
    origin = request.headers.get("origin")
    foreign = origin is not None and origin != str(request.base_url).rstrip("/")
    if foreign or request.url.hostname not in LOOPBACK:
        raise HTTPException(403, "The sandbox is controlled from its own page.")


router = APIRouter(
    prefix="/sandbox",
    dependencies=[Depends(forbid_cross_origin)],
    responses=NOT_FOUND,
    tags=["Sandbox"],
)


class Approved(BaseModel):
    """The status of a campaign after its approval."""

    status: str


class Quota(BaseModel):
    """The messages that an account may generate and publish in one window; None for any number."""

    messages: int | None = Field(ge=0, le=2**31 - 1)


class FaultList(BaseModel):
    """The active faults."""

    faults: list[Fault]


class InFlight(BaseModel):
    """Responses in flight: now, and the most at any moment."""

    now: int
    most: int


class InFlightReport(BaseModel):
    """Calls and downloads in flight."""

    calls: InFlight
    downloads: InFlight


def faults_of(request: Request) -> Faults:
    """Return the active faults of the service."""
    return request.app.state.faults


@router.post("/campaigns/{campaign_id}/approve")
def approve_campaign(campaign_id: PathId, request: Request) -> Approved:
    """Approve the messages of a campaign that is *Ready for review*."""
    with context_of(request).store.write() as session:
        campaign = session.get(Campaign, campaign_id)
        if campaign is None:
            raise HTTPException(404, Text.CAMPAIGN_NOT_FOUND)
        reruns.approve(session, campaign)
        return Approved(status=campaign.status)


@router.put("/campaigns/{campaign_id}/ai")
def configure_campaign_ai(
    campaign_id: PathId, body: AiConfiguration, request: Request
) -> AiConfiguration:
    """Set a campaign's AI configuration for its next runs; without a template it keeps its own."""
    with context_of(request).store.write() as session:
        campaign = session.get(Campaign, campaign_id)
        if campaign is None:
            raise HTTPException(404, Text.CAMPAIGN_NOT_FOUND)
        if body.template is not None:
            _check_template(session, campaign, body.template)
            campaign.template = body.template
        campaign.ai = body.model_dump(exclude={"template"})
        return body.model_copy(update={"template": campaign.template})


def _check_template(session: Session, campaign: Campaign, template: str) -> None:
    """Check a template for a campaign. Raises HTTPException, 400, which does not repeat it."""
    if not template.strip():
        raise HTTPException(400, "The template is blank.")
    names = [field.field_name for field in fields_of(session, campaign.workspace_id)]
    try:
        templates.check(template, names)
    except templates.BadTemplate as error:
        raise HTTPException(400, str(error)) from None


@router.put("/accounts/{account_id}/quota")
def set_account_quota(account_id: PathId, body: Quota, request: Request) -> Quota:
    """Set the quota of an account, from the current window on."""
    with context_of(request).store.write() as session:
        account = session.get(Account, account_id)
        if account is None:
            raise HTTPException(404, "Account not found.")
        account.quota = body.messages
    return body


@router.put("/faults")
def put_fault(fault: Fault, request: Request) -> FaultList:
    """Switch a fault on, in place of an earlier one for its endpoint and method."""
    faults_of(request).put(fault)
    return list_faults(request)


@router.get("/faults")
def list_faults(request: Request) -> FaultList:
    """List the active faults."""
    return FaultList(faults=[active.fault for active in faults_of(request).all()])


@router.delete("/faults")
def clear_faults(request: Request) -> FaultList:
    """Switch all faults off."""
    faults_of(request).clear()
    return list_faults(request)


# On the event loop, where the counting is done.
@router.get("/traffic")
async def show_traffic(request: Request) -> InFlightReport:
    """Count the calls and downloads in flight."""
    counts: InFlightCounts = request.app.state.in_flight
    calls, downloads = counts.calls, counts.downloads
    return InFlightReport(
        calls=InFlight(now=calls.now, most=calls.peak),
        downloads=InFlight(now=downloads.now, most=downloads.peak),
    )


@router.delete("/traffic")
async def reset_traffic(request: Request) -> InFlightReport:
    """Reset the peaks to what is in flight now."""
    counts: InFlightCounts = request.app.state.in_flight
    counts.calls.reset_peak()
    counts.downloads.reset_peak()
    return await show_traffic(request)
