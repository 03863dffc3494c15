"""Campaign, message and rerun endpoints."""

from datetime import UTC, datetime
from time import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from nudgescribe import contract, rfc4180
from nudgescribe.contract import Status, Text
from sandbox import exports, reruns
from sandbox.faults import Refusal
from sandbox.scope import find_campaign, find_group
from sandbox.security import ThreeHeaderRoute, account_of, link_is_valid, sign_link
from sandbox.settings import Settings
from sandbox.store import Campaign, Job, Message, Run, Workspace
from sandbox.workspaces import count_customers, store_of

router = APIRouter(route_class=ThreeHeaderRoute)
links = APIRouter()


@router.post(contract.CAMPAIGNS)
def list_campaigns(body: contract.CampaignListRequest, request: Request) -> contract.CampaignList:
    with store_of(request).read() as session:
        workspaces = session.scalars(
            select(Workspace).where(Workspace.account_id == account_of(request))
        )
        return contract.CampaignList(
            workspaces=[_workspace_on_wire(session, each, body) for each in workspaces]
        )


@router.post(contract.PUBLISH)
def publish(body: contract.CampaignRequest, request: Request) -> contract.Job:
    settings: Settings = request.app.state.settings
    with store_of(request).write() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND)
        run = reruns.current_run(session, campaign)
        messages = reruns.current_messages(session, campaign)
        if campaign.status not in (Status.READY_TO_PUBLISH, Status.PUBLISHED):
            raise Refusal(400, Text.NOT_READY_TO_PUBLISH)
        if not messages or not count_customers(session, run.group_id):
            raise Refusal(404, Text.CAMPAIGN_DETAILS_NOT_FOUND)
        if campaign.status == Status.READY_TO_PUBLISH:
            reruns.publish(session, campaign)
        exports.put_past_pages_away(settings, campaign.id, campaign.current_run)
        job = Job(kind="export", campaign_id=campaign.id, run_number=campaign.current_run)
        session.add(job)
        session.flush()
        return contract.Job(job_uid=job.uid, status=job.state)


@router.post(contract.MESSAGES_PAGES)
def count_pages(body: contract.RunRequest, request: Request) -> contract.PageCount:
    with store_of(request).read() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND)
        place = exports.folder(request.app.state.settings, campaign.id, body.run_number)
    return contract.PageCount(num_files=len(exports.pages(place)))


@router.post(contract.MESSAGES_FETCH)
def fetch(
    body: contract.FetchRequest, request: Request
) -> contract.CsvPage | contract.JsonPage | contract.PageLink:
    settings: Settings = request.app.state.settings
    with store_of(request).read() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND)
    if body.export_type not in ("utf8", "json", "url"):
        raise Refusal(401, Text.INVALID_EXPORT)
    if body.export_type == "url" and body.run_number is not None:
        raise Refusal(400, Text.NO_LINK_FOR_PAST_RUN)
    page = exports.folder(settings, campaign.id, body.run_number) / f"{body.file_num:05d}.csv"
    if not page.exists():
        raise Refusal(404, Text.FILE_NOT_FOUND)
    if body.export_type == "utf8":
        return contract.CsvPage(content=page.read_bytes().decode())
    if body.export_type == "url":
        expires = int(time()) + settings.link_seconds
        url = request.url_for("follow_link", campaign_id=campaign.id, name=page.name)
        signature = sign_link(request.app.state.keys, url.path, expires)
        signed = url.include_query_params(expires=expires, signature=signature)
        return contract.PageLink(url=str(signed), expires_at=datetime.fromtimestamp(expires, UTC))
    try:
        return contract.JsonPage(messages=exports.first_rows(page))
    except rfc4180.MalformedCsv:
        raise Refusal(500, Text.UNPARSABLE) from None


@links.get("/exports/{campaign_id}/{name}")
def follow_link(
    campaign_id: str,
    name: str,
    expires: Annotated[int, Query()],
    signature: Annotated[str, Query()],
    request: Request,
) -> FileResponse:
    """A signed link: only paths this service has signed are served."""
    if not link_is_valid(request.app.state.keys, request.url.path, expires, signature):
        raise Refusal(403, "The link has expired or was not issued here.")
    page = exports.folder(request.app.state.settings, campaign_id) / name
    if not page.exists():
        raise Refusal(404, Text.FILE_NOT_FOUND)
    return FileResponse(page, media_type="text/csv")


@router.post(contract.RERUN_INITIATE)
def initiate(body: contract.InitiateRerun, request: Request) -> contract.RerunStarted:
    with store_of(request).write() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND_RERUN)
        group = find_group(
            session, account_of(request), body.new_customer_group_id, within=campaign.workspace_id
        )
        run = reruns.initiate(session, campaign, group, request.state.claims.user_id)
        return contract.RerunStarted(
            run=_run_on_wire(run),
            comparison=contract.SegmentLists.model_validate(run.comparison),
        )


@router.post(contract.RERUN_HISTORY)
def history(body: contract.CampaignRequest, request: Request) -> contract.RunHistory:
    with store_of(request).read() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND_RERUN)
        runs = session.scalars(
            select(Run).where(Run.campaign_id == campaign.id).order_by(Run.run_number.desc())
        )
        return contract.RunHistory(runs=[_run_on_wire(run) for run in runs])


@router.post(contract.RERUN_MESSAGES)
def run_messages(body: contract.RunRequest, request: Request) -> contract.SegmentMessageList:
    with store_of(request).read() as session:
        campaign = _find(session, request, body, Text.CAMPAIGN_NOT_FOUND_RERUN)
        if body.run_number is None:
            messages = reruns.current_messages(session, campaign)
        else:
            query = select(Message).where(
                Message.campaign_id == campaign.id, Message.run_number == body.run_number
            )
            messages = session.scalars(query.order_by(Message.segment_key))
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
            if _was_published_within(campaign, filters)
        ],
    )


def _was_published_within(campaign: Campaign, filters: contract.CampaignListRequest) -> bool:
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
    summary = None
    if run.comparison is not None:
        lists = contract.SegmentLists.model_validate(run.comparison)
        summary = contract.ComparisonSummary(
            matched=len(lists.matched_segments),
            new=len(lists.new_segments),
            orphaned=len(lists.orphaned_segments),
        )
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
