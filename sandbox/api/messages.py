"""Message endpoints: publish, count the pages, fetch one; and the links to pages."""

from datetime import UTC, datetime
from time import time
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from nudgescribe import contract, rfc4180
from nudgescribe.contract import Status, Text
from sandbox.api.security import THREE_HEADERS, ThreeHeaderRoute, sign_link, verify_link
from sandbox.context import Context, account_of, context_of
from sandbox.data.lookup import find_campaign
from sandbox.data.models import Campaign, Job
from sandbox.data.page_files import page_name
from sandbox.data.profiles import count_customers
from sandbox.engine import exports, quota, reruns
from sandbox.errors import LINK_REFUSED, NOT_FOUND, describe_errors

router = APIRouter(
    route_class=ThreeHeaderRoute,
    dependencies=THREE_HEADERS,
    responses=NOT_FOUND,
    strict_content_type=False,  # their pages do not list the header
)
links = APIRouter()


@router.post(
    contract.PUBLISH,
    responses=describe_errors(
        {429: "the quota is used up; Retry-After tells when the next window begins"}
    ),
)
def publish(body: contract.CampaignRequest, request: Request) -> contract.Job:
    """Queue the CSV export of the current run; publish it if it is ready to be published."""
    context = context_of(request)
    with context.store.write() as session:
        campaign = _find(session, request, body)
        customers = count_customers(session, reruns.current_run(session, campaign).group_id)
        if not customers or not reruns.current_messages(session, campaign):
            raise HTTPException(404, Text.CAMPAIGN_DETAILS_NOT_FOUND)
        if campaign.status not in (Status.READY_TO_PUBLISH, Status.PUBLISHED):
            raise HTTPException(400, Text.NOT_READY_TO_PUBLISH)
        is_first = campaign.status == Status.READY_TO_PUBLISH
        _charge(session, request, customers if is_first else 0)
        if is_first:
            reruns.publish(session, campaign)
        campaign.exported_run = campaign.current_run
        job = Job(kind=exports.EXPORT, subject=campaign.id, run_number=campaign.current_run)
        session.add(job)
        session.flush()
        return contract.Job(job_uid=job.uid, status=job.state)


@router.post(contract.MESSAGES_PAGES)
def count_pages(body: contract.RunRequest, request: Request) -> contract.PageCount:
    """Count the exported files of a run."""
    context = context_of(request)
    with context.store.read() as session:
        campaign = _find(session, request, body)
    with context.store.write() as session:
        quota.count_pages_call(session, context.settings, account_of(request))
    run_number = _run_with_pages(campaign, body)
    names = [] if run_number is None else context.page_files.names(campaign.id, run_number)
    return contract.PageCount(num_files=len(names))


@router.post(
    contract.MESSAGES_FETCH,
    responses=describe_errors({500: "an export that cannot be parsed"}),
)
def fetch(
    body: contract.FetchRequest, request: Request
) -> contract.CsvPage | contract.JsonPage | contract.PageLink:
    """Return an exported file as text, as rows, or as a link."""
    context = context_of(request)
    with context.store.read() as session:
        campaign = _find(session, request, body)
    if body.export_type not in ("utf8", "json", "url"):
        raise HTTPException(401, Text.INVALID_EXPORT)
    if body.export_type == "url" and body.run_number is not None:
        raise HTTPException(400, Text.NO_LINK_FOR_PAST_RUN)
    name, run_number = page_name(body.file_num), _run_with_pages(campaign, body)
    if run_number is None or not context.page_files.exists(campaign.id, run_number, name):
        raise HTTPException(404, Text.FILE_NOT_FOUND)
    if body.export_type == "url":
        return _link(context, request, campaign.id, run_number, name)
    try:
        content = context.page_files.read(campaign.id, run_number, name)
        page = exports.parse_page(content)
    except FileNotFoundError:  # a new export has fewer pages
        raise HTTPException(404, Text.FILE_NOT_FOUND) from None
    except rfc4180.MalformedCsv:
        raise HTTPException(500, Text.UNPARSABLE) from None
    if body.export_type == "utf8":
        return contract.CsvPage(content=content.decode())
    return contract.JsonPage(messages=exports.first_rows(page))


@links.get("/exports/{campaign_id}/run-{run_number}/{name}", include_in_schema=False)
def follow_link(
    campaign_id: str,
    run_number: int,
    name: str,
    expires: Annotated[int, Query()],
    signature: Annotated[str, Query()],
    request: Request,
) -> Response:
    """Serve the page of a signed link."""
    context = context_of(request)
    if not verify_link(context.keys, request.url.path, expires, signature):
        raise HTTPException(403, LINK_REFUSED)
    if not context.page_files.exists(campaign_id, run_number, name):
        raise HTTPException(404, Text.FILE_NOT_FOUND)
    if file := context.page_files.local_file(campaign_id, run_number, name):
        return FileResponse(file, media_type="text/csv")
    return Response(context.page_files.read(campaign_id, run_number, name), media_type="text/csv")


def _find(session: Session, request: Request, body: contract.CampaignRequest) -> Campaign:
    return find_campaign(session, account_of(request), body.campaign_id, Text.CAMPAIGN_NOT_FOUND)


def _charge(session: Session, request: Request, messages: int) -> None:
    """Charge the account for messages that are published for the first time.

    Raises HTTPException, 429 with the seconds until the next window, if its quota is too small,
    also for no message.
    """
    settings = context_of(request).settings
    try:
        quota.charge(session, settings, account_of(request), published=messages)
    except quota.QuotaReached as reached:
        wait = {"retry-after": str(reached.retry_after)}
        raise HTTPException(429, str(reached), wait) from None


def _run_with_pages(campaign: Campaign, body: contract.RunRequest) -> int | None:
    """Return the run whose pages are meant, None if there is none.

    Without a run number those are the files directly in the campaign's folder, with one those in a
    past run's sub-folder. Both are stored in a folder of their run; the column `exported_run` says
    which ones count as directly in the campaign's folder, so that a publish need not move files.
    """
    if body.run_number is None:
        return campaign.exported_run
    return None if body.run_number == campaign.exported_run else body.run_number


def _link(
    context: Context, request: Request, campaign_id: str, run_number: int, name: str
) -> contract.PageLink:
    """Return a link to a page, signed by its file system or else by this service."""
    seconds = context.settings.link_seconds
    expires = int(time()) + seconds
    link = context.page_files.signed_url(campaign_id, run_number, name, seconds)
    if link is None:
        url = request.url_for(
            "follow_link", campaign_id=campaign_id, run_number=run_number, name=name
        )
        signature = sign_link(context.keys, url.path, expires)
        link = str(url.include_query_params(expires=expires, signature=signature))
    return contract.PageLink(url=link, expires_at=datetime.fromtimestamp(expires, UTC))
