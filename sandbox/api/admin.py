"""What the real service leaves to people in its platform or keeps to itself: approving a run's
messages, an account's quota, the traffic, and faults for rehearsals. Needs no sign-in: the sandbox
serves one machine.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field

from nudgescribe.contract import Text
from sandbox.context import context_of
from sandbox.data.models import Account, Campaign
from sandbox.engine import reruns
from sandbox.errors import Refusal
from sandbox.middleware.faults import Fault, Faults
from sandbox.middleware.in_flight import Traffic

LOOPBACK = ("127.0.0.1", "localhost")

Id = Annotated[str, Path(pattern=r"^[\w-]+$")]


def from_here(request: Request) -> None:
    """Refuses what a page of another site sends through a person's browser, under any name."""
    origin = request.headers.get("origin")
    foreign = origin is not None and origin != str(request.base_url).rstrip("/")
    if foreign or request.url.hostname not in LOOPBACK:
        raise Refusal(403, "The sandbox is controlled from its own page.")


router = APIRouter(prefix="/sandbox", dependencies=[Depends(from_here)])


class Approved(BaseModel):
    status: str


class Quota(BaseModel):
    """Messages an account may publish within a window; None for any number."""

    messages: int | None = Field(ge=0, le=2**31 - 1)


class FaultList(BaseModel):
    faults: list[Fault]


class Busy(BaseModel):
    """Answers on their way: now, and the most at one moment."""

    now: int
    most: int


class TrafficReport(BaseModel):
    calls: Busy
    downloads: Busy


def faults_of(request: Request) -> Faults:
    return request.app.state.faults


@router.post("/campaigns/{campaign_id}/approve")
def approve(campaign_id: Id, request: Request) -> Approved:
    """Ready for review -> Ready to publish."""
    with context_of(request).store.write() as session:
        campaign = session.get(Campaign, campaign_id)
        if campaign is None:
            raise Refusal(404, Text.CAMPAIGN_NOT_FOUND)
        reruns.approve(session, campaign)
        return Approved(status=campaign.status)


@router.put("/accounts/{account_id}/quota")
def set_quota(account_id: Id, body: Quota, request: Request) -> Quota:
    with context_of(request).store.write() as session:
        account = session.get(Account, account_id)
        if account is None:
            raise Refusal(404, "Account not found.")
        account.quota = body.messages
    return body


@router.put("/faults")
def put_fault(fault: Fault, request: Request) -> FaultList:
    """Switches a fault on, in place of the endpoint's earlier one."""
    faults_of(request).put(fault)
    return list_faults(request)


@router.get("/faults")
def list_faults(request: Request) -> FaultList:
    return FaultList(faults=[switch.fault for switch in faults_of(request).all()])


@router.delete("/faults")
def clear_faults(request: Request) -> FaultList:
    """Switches all faults off."""
    faults_of(request).clear()
    return list_faults(request)


# On the event loop, where the counting is done.
@router.get("/traffic")
async def show_traffic(request: Request) -> TrafficReport:
    """How many calls and downloads by link are being answered."""
    traffic: Traffic = request.app.state.traffic
    calls, downloads = traffic.calls, traffic.downloads
    return TrafficReport(
        calls=Busy(now=calls.now, most=calls.most),
        downloads=Busy(now=downloads.now, most=downloads.most),
    )


@router.delete("/traffic")
async def forget_traffic(request: Request) -> TrafficReport:
    """Sets the most back to what there is now."""
    traffic: Traffic = request.app.state.traffic
    traffic.calls.forget()
    traffic.downloads.forget()
    return await show_traffic(request)
