"""Campaign and rerun endpoints."""

from fastapi import APIRouter, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from nudgescribe import contract
from nudgescribe.contract import Status, Text
from sandbox.api.security import THREE_HEADERS, RerunRoute, ThreeHeaderRoute
from sandbox.context import account_of, caller_of, context_of
from sandbox.data.lookup import find_campaign, find_group
from sandbox.data.models import Campaign, Message, Run, Workspace
from sandbox.engine import reruns
from sandbox.errors import NOT_FOUND

router = APIRouter(
    route_class=ThreeHeaderRoute,
    dependencies=THREE_HEADERS,
    responses=NOT_FOUND,
    tags=["Campaigns and messages"],
)
rerun_router = APIRouter(
    route_class=RerunRoute, dependencies=THREE_HEADERS, responses=NOT_FOUND, tags=["Reruns"]
)


@router.post(contract.CAMPAIGNS)
def list_campaigns(body: contract.CampaignListRequest, request: Request) -> contract.CampaignList:
    """List the account's campaigns by workspace, filtered by the time of publication."""
    with context_of(request).store.read() as session:
        workspaces = session.scalars(
            select(Workspace).where(Workspace.account_id == account_of(request))
        )
        return contract.CampaignList(
            workspaces=[_workspace_on_wire(session, each, body) for each in workspaces]
        )


@rerun_router.post(contract.RERUN_INITIATE)
def initiate_campaign_rerun(
    body: contract.InitiateRerun, request: Request
) -> contract.RerunStarted:
    """Begin a rerun of a campaign onto another customer group.

    The campaign and all its messages must be Published. Messages of segments that both groups have
    are copied; if there are new segments, theirs are generated, and the run is awaiting review.
    """
    with context_of(request).store.write() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND_RERUN)
        caller = caller_of(request)
        group = find_group(
            session, caller.account_id, body.new_customer_group_id, campaign.workspace_id
        )
        keys = context_of(request).keys
        run = reruns.initiate(session, keys, campaign, group, caller.user_id)
        request.state.job_uid = run.job_uid
        return contract.RerunStarted(run=_run_on_wire(run), comparison=reruns.segment_lists(run))


@rerun_router.post(contract.RERUN_HISTORY)
def list_campaign_runs(body: contract.CampaignRequest, request: Request) -> contract.RunHistory:
    """List the runs of a campaign, newest first; the way to see how far a rerun is."""
    with context_of(request).store.read() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND_RERUN)
        runs = reruns.runs_of(session, campaign)
        return contract.RunHistory(runs=[_run_on_wire(run) for run in runs])


@rerun_router.post(contract.RERUN_MESSAGES)
def list_campaign_run_messages(
    body: contract.RunRequest, request: Request
) -> contract.SegmentMessageList:
    """List a run's messages; without a run number, the current run's active ones."""
    with context_of(request).store.read() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND_RERUN)
        if body.run_number is None:
            messages = reruns.current_messages(session, campaign)
        else:
            query = select(Message).where(
                Message.campaign_id == campaign.id, Message.run_number == body.run_number
            )
            messages = reruns.sort_by_segment(session.scalars(query))
        return contract.SegmentMessageList(messages=[_message_on_wire(each) for each in messages])


def _find(
    session: Session, request: Request, body: contract.CampaignRequest, text: Text
) -> Campaign:
    return find_campaign(session, account_of(request), body.campaign_id, text)


def _workspace_on_wire(
    session: Session, workspace: Workspace, filters: contract.CampaignListRequest
) -> contract.WorkspaceCampaigns:
    campaigns = session.scalars(select(Campaign).where(Campaign.workspace_id == workspace.id))
    return contract.WorkspaceCampaigns(
        workspace_id=workspace.id,
        name=workspace.name,
        campaigns=[
            _campaign_on_wire(session, campaign)
            for campaign in campaigns
            if _is_published_between(campaign, filters)
        ],
    )


def _is_published_between(campaign: Campaign, filters: contract.CampaignListRequest) -> bool:
    start, end, at = filters.published_from, filters.published_to, campaign.published_at
    if at is None:
        return start is None and end is None
    return (start is None or start <= at) and (end is None or at <= end)


def _campaign_on_wire(session: Session, campaign: Campaign) -> contract.Campaign:
    run = reruns.current_run(session, campaign)
    return contract.Campaign(
        campaign_id=campaign.id,
        name=campaign.name,
        status=campaign.status,
        stage=run.phase if campaign.status == Status.PROCESSING else campaign.status,
        start_date=campaign.start_date,
        end_date=campaign.end_date,
        customer_group_id=run.group_id,
        current_run=campaign.current_run,
        published_at=campaign.published_at,
    )


def _run_on_wire(run: Run) -> contract.Run:
    summary = contract.ComparisonSummary(**run.summary) if run.summary else None
    return contract.Run(
        run_number=run.run_number,
        status=run.status,
        phase=run.phase,
        customer_group_id=run.group_id,
        customer_group_name=run.group_name,
        segment_count=run.segment_count,
        comparison_summary=summary,
        job_uid=run.job_uid,
        initiated_by=run.initiated_by,
        started_at=run.started_at,
        completed_at=run.completed_at,
        error=run.error,
    )


def _message_on_wire(message: Message) -> contract.SegmentMessage:
    return contract.SegmentMessage(
        message_id=message.id,
        run_number=message.run_number,
        segment=message.segment,
        message=message.text,
        review_status=message.review_status,
        approval_stage=message.approval_stage,
        archived=message.archived,
    )
