"""What the real service leaves to people in its platform: approving a run's messages."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from nudgescribe.contract import Text
from sandbox import reruns
from sandbox.faults import Refusal
from sandbox.store import Campaign
from sandbox.workspaces import store_of

router = APIRouter(prefix="/sandbox")


class Approved(BaseModel):
    status: str


@router.post("/campaigns/{campaign_id}/approve")
def approve(campaign_id: str, request: Request) -> Approved:
    """Ready for review -> Ready to publish. Needs no sign-in: the sandbox serves one machine."""
    with store_of(request).write() as session:
        campaign = session.get(Campaign, campaign_id)
        if campaign is None:
            raise Refusal(404, Text.CAMPAIGN_NOT_FOUND)
        reruns.approve(session, campaign)
        return Approved(status=campaign.status)
