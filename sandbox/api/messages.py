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
from sandbox.context import Caller, Context, account_of, caller_of, context_of
from sandbox.data.lookup import find_campaign
from sandbox.data.models import Campaign, Job
from sandbox.data.page_files import RunFolder, page_name
from sandbox.data.profiles import count_customers
from sandbox.engine import exports, quota, reruns
from sandbox.errors import LINK_REFUSED, NOT_FOUND, describe_errors

router = APIRouter(
    route_class=ThreeHeaderRoute,
    dependencies=THREE_HEADERS,
    responses=NOT_FOUND,
    tags=["Campaigns and messages"],
    strict_content_type=False,  # their pages do not list the header
)
links = APIRouter()


@router.post(
    contract.PUBLISH,
    responses=describe_errors(
        {429: "the quota is used up; Retry-After tells when the next window begins"}
    ),
)
def publish_messages(body: contract.CampaignRequest, request: Request) -> contract.Job:
    """Queue the CSV export of the current run; publish it if it is ready to be published.

    Nothing tells how the job stands: the export has ended when its files can be counted.
    """
    context = context_of(request)
    with context.store.write() as session:
        campaign = _find(session, request, body)
        customers = count_customers(session, reruns.current_run(session, campaign).group_id)
        if not customers or not reruns.current_messages(session, campaign):
            raise HTTPException(404, Text.CAMPAIGN_DETAILS_NOT_FOUND)
        if campaign.status not in (Status.READY_TO_PUBLISH, Status.PUBLISHED):
            raise HTTPException(400, Text.NOT_READY_TO_PUBLISH)
        _charge(session, request, campaign)
        if campaign.status == Status.READY_TO_PUBLISH:
            reruns.publish(session, campaign)
        campaign.exported_run = campaign.current_run
        job = Job(
            kind=exports.EXPORT,
            subject=campaign.id,
            run_number=campaign.current_run,
            user_id=caller_of(request).user_id,
        )
        session.add(job)
        session.flush()
        request.state.job_uid = job.uid
        return contract.Job(job_uid=job.uid, status=job.state)


@router.post(contract.MESSAGES_PAGES)
def count_message_pages(body: contract.RunRequest, request: Request) -> contract.PageCount:
    """Count the exported files of the current run, or of a past one by its number."""
    context = context_of(request)
    with context.store.read() as session:
        campaign = _find(session, request, body)
    quota.count_pages_call(context.settings, account_of(request))
    folder = _folder_with_pages(request, campaign, body)
    names = [] if folder is None else context.page_files.names(folder)
    return contract.PageCount(num_files=len(names))


@router.post(
    contract.MESSAGES_FETCH,
    responses=describe_errors({500: "an export that cannot be parsed"}),
)
def fetch_messages(
    body: contract.FetchRequest, request: Request
) -> contract.CsvPage | contract.JsonPage | contract.PageLink:
    """Return an exported file as text, as its first 1000 rows, or as a link for about an hour.

    There are no links to the files of past runs.
    """
    context = context_of(request)
    with context.store.read() as session:
        campaign = _find(session, request, body)
    if body.export_type not in ("utf8", "json", "url"):
        raise HTTPException(401, Text.INVALID_EXPORT)
    if body.export_type == "url" and body.run_number is not None:
        raise HTTPException(400, Text.NO_LINK_FOR_PAST_RUN)
    name, folder = page_name(body.file_num), _folder_with_pages(request, campaign, body)
    if folder is None or not context.page_files.exists(folder, name):
        raise HTTPException(404, Text.FILE_NOT_FOUND)
    if body.export_type == "url":
        return _link(context, request, folder, name)
    try:
        content = context.page_files.read(folder, name)
        page = exports.parse_page(content)
    except FileNotFoundError:  # a new export has fewer pages
        raise HTTPException(404, Text.FILE_NOT_FOUND) from None
    except rfc4180.MalformedCsv:
        raise HTTPException(500, Text.UNPARSABLE) from None
    if body.export_type == "utf8":
        return contract.CsvPage(content=content.decode())
    return contract.JsonPage(messages=exports.first_rows(page))


@links.get("/exports/{account_id}/{campaign_id}/run-{run_number}/{name}", include_in_schema=False)
def follow_link(
    account_id: str,
    campaign_id: str,
    run_number: int,
    name: str,
    user_id: Annotated[str, Query()],
    expires: Annotated[int, Query()],
    signature: Annotated[str, Query()],
    request: Request,
) -> Response:
    """Serve the page of a signed link, for the user that it was issued to."""
    context = context_of(request)
    if not verify_link(context.keys, request.url.path, user_id, expires, signature):
        raise HTTPException(403, LINK_REFUSED)
    request.state.caller = Caller(user_id, account_id, role_code="")
    folder = RunFolder(account_id, campaign_id, run_number)
    if not context.page_files.exists(folder, name):
        raise HTTPException(404, Text.FILE_NOT_FOUND)
    if file := context.page_files.local_file(folder, name):
        return FileResponse(file, media_type="text/csv")
    return Response(context.page_files.read(folder, name), media_type="text/csv")


def _find(session: Session, request: Request, body: contract.CampaignRequest) -> Campaign:
    return find_campaign(session, account_of(request), body.campaign_id, Text.CAMPAIGN_NOT_FOUND)


def _charge(session: Session, request: Request, campaign: Campaign) -> None:
    """Charge the account for the messages that it publishes for the first time.

    Raises HTTPException, 429 with the seconds until the next window, if its quota is used up or
    too small for them.
    """
    context, account_id = context_of(request), account_of(request)
    messages = exports.count_messages(session, context.keys, campaign)
    try:
        quota.charge_export(session, context.settings, account_id, campaign, messages)
    except quota.QuotaReached as reached:
        wait = {"retry-after": str(reached.retry_after)}
        raise HTTPException(429, str(reached), wait) from None


def _folder_with_pages(
    request: Request, campaign: Campaign, body: contract.RunRequest
) -> RunFolder | None:
    """Return the folder of the run whose pages are meant, None if there is none.

    Without a run number those are the files directly in the campaign's folder, with one those in a
    past run's sub-folder. Both are stored in a folder of their run; the column `exported_run` says
    which ones count as directly in the campaign's folder, so that a publish need not move files.
    """
    number = campaign.exported_run if body.run_number is None else body.run_number
    if number is None or body.run_number == campaign.exported_run:
        return None
    return RunFolder(account_of(request), campaign.id, number)


def _link(context: Context, request: Request, folder: RunFolder, name: str) -> contract.PageLink:
    """Return a link to a page, signed by its file system or else by this service."""
    seconds = context.settings.link_seconds
    expires = int(time()) + seconds
    link = context.page_files.signed_url(folder, name, seconds)
    if link is None:
        url = request.url_for("follow_link", **folder._asdict(), name=name)
        user_id = caller_of(request).user_id
        signature = sign_link(context.keys, url.path, user_id, expires)
        signed = url.include_query_params(user_id=user_id, expires=expires, signature=signature)
        link = str(signed)
    return contract.PageLink(url=link, expires_at=datetime.fromtimestamp(expires, UTC))
