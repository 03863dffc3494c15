"""The admin page: campaigns and their runs, quotas, background jobs, calls and faults.

Its buttons do what `sandbox.api.admin` does; errors are answered as a page.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from nudgescribe import contract, samples
from nudgescribe.contract import Status, Text
from sandbox.api import admin
from sandbox.api.admin import PathId, forbid_cross_origin
from sandbox.api.security import Handler
from sandbox.context import context_of
from sandbox.data.lookup import fields_of
from sandbox.data.models import Account, Campaign, Job, Message, User, Workspace, now
from sandbox.engine import quota, reruns
from sandbox.middleware.audit import read_newest
from sandbox.middleware.faults import ActiveFault, Fault
from sandbox.settings import Settings

JOBS_SHOWN = 20
CALLS_SHOWN = 30
WINDOWS_SHOWN = 5
API = "/v1/"
PATHS = sorted(
    path for path in vars(contract).values() if isinstance(path, str) and path.startswith(API)
)
ENDPOINTS = (*PATHS, "/exports/", API)
"""Where a fault can be switched on by the page's form."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
}
"""No text of a user can run or load anything, and no other page can frame the buttons."""

_templates = Environment(
    loader=PackageLoader("sandbox"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

Number = Annotated[contract.Number, Path()]
Row = TypeVar("Row")


class PageRoute(APIRoute):
    """Route whose errors are answered as a page with their reasons."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_with_page(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                return _error_page(error.status_code, [error.detail])
            except RequestValidationError as error:
                problems = [f"{each['loc'][-1]}: {each['msg']}." for each in error.errors()]
                return _error_page(400, problems)

        return handle_with_page


router = APIRouter(
    route_class=PageRoute, dependencies=[Depends(forbid_cross_origin)], include_in_schema=False
)


def parse_quota(messages: Annotated[str, Form()] = "") -> admin.Quota:
    """Return the quota of a form; blank is none. Raises RequestValidationError."""
    try:
        return admin.Quota.model_validate({"messages": messages.strip() or None})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


@router.get("/")
def overview(request: Request) -> HTMLResponse:
    """Show all accounts, jobs, calls and faults."""
    context = context_of(request)
    with context.store.read() as session:
        values = {**_campaigns(session), **_quotas(session, context.settings)}
        jobs = session.scalars(select(Job).order_by(Job.number.desc()).limit(JOBS_SHOWN)).all()
        emails = {user.id: user.email for user in session.scalars(select(User))}
    calls = read_newest(context.settings.audit_file, CALLS_SHOWN)
    faults = [(active, _changed_settings(active)) for active in admin.faults_of(request).all()]
    return _page(
        "overview.html",
        {**values, "jobs": jobs, "faults": faults, "calls": calls, "emails": emails},
    )


@router.get("/page/campaigns/{campaign_id}/runs/{run_number}")
def run_segments(campaign_id: PathId, run_number: Number, request: Request) -> HTMLResponse:
    """Show the messages of a run by segment, some as customers get them."""
    with context_of(request).store.read() as session:
        campaign = session.get(Campaign, campaign_id)
        if campaign is None:
            raise HTTPException(404, Text.CAMPAIGN_NOT_FOUND)
        run = reruns.find_run(session, campaign, run_number)
        if run is None:
            raise HTTPException(404, "Run not found.")
        query = select(Message).where(
            Message.campaign_id == campaign_id, Message.run_number == run_number
        )
        messages = reruns.sort_by_segment(session.scalars(query))
        numbers = [each.run_number for each in reruns.runs_of(session, campaign)]
        customers = made_up_customers(session, campaign)
    shown = {"campaign": campaign, "run": run, "messages": messages, "numbers": numbers}
    return _page("run.html", {**shown, "samples": _samples(messages, customers)})


@router.post("/page/campaigns/{campaign_id}/approve")
def approve(campaign_id: PathId, request: Request) -> RedirectResponse:
    """Approve a campaign's messages and show the overview."""
    admin.approve_campaign(campaign_id, request)
    return _redirect_to_overview()


@router.post("/page/accounts/{account_id}/quota")
def set_quota(
    account_id: PathId, wanted: Annotated[admin.Quota, Depends(parse_quota)], request: Request
) -> RedirectResponse:
    """Set an account's quota and show the overview."""
    admin.set_account_quota(account_id, wanted, request)
    return _redirect_to_overview()


@router.post("/page/faults")
def put_fault(fault: Annotated[Fault, Form()], request: Request) -> RedirectResponse:
    """Switch a fault on and show the overview."""
    admin.put_fault(fault, request)
    return _redirect_to_overview()


@router.post("/page/faults/clear")
def clear_faults(request: Request) -> RedirectResponse:
    """Switch all faults off and show the overview."""
    admin.clear_faults(request)
    return _redirect_to_overview()


def _campaigns(session: Session) -> dict[str, Any]:
    """Return all accounts, and workspaces, campaigns and runs by the id of what they belong to.

    Runs are newest first.
    """
    workspaces = session.scalars(select(Workspace).order_by(Workspace.name, Workspace.id))
    campaigns = session.scalars(select(Campaign).order_by(Campaign.name, Campaign.id)).all()
    return {
        "accounts": session.scalars(select(Account).order_by(Account.id)).all(),
        "workspaces": _grouped(workspaces, lambda workspace: workspace.account_id),
        "campaigns": _grouped(campaigns, lambda campaign: campaign.workspace_id),
        "runs": {each.id: reruns.runs_of(session, each) for each in campaigns},
    }


def _quotas(session: Session, settings: Settings) -> dict[str, Any]:
    """Return what each account has used of the current window, and when the window ends."""
    accounts = session.scalars(select(Account.id)).all()
    return {
        "used": {each: quota.used(session, settings, each) for each in accounts},
        "pages_calls": {each: quota.count_pages_calls(settings, each) for each in accounts},
        "past": {each: quota.history(session, settings, each, WINDOWS_SHOWN) for each in accounts},
        "window_end": quota.current_window(settings).end,
    }


def made_up_customers(session: Session, campaign: Campaign) -> list[dict[str, str]]:
    """Return customers whose values fit the fields of the campaign's workspace."""
    fields = fields_of(session, campaign.workspace_id)
    return [samples.made_up(fields, number) for number in range(samples.PEOPLE)]


def _samples(
    messages: Sequence[Message], customers: Sequence[Mapping[str, str]]
) -> list[tuple[Message, str]]:
    """Return some messages with their text as a made-up customer gets it, new ones first."""
    new_first = sorted(messages, key=lambda message: message.review_status == reruns.APPROVED)
    return [
        (message, samples.render(message.text, message.segment, customer))
        for message, customer in zip(new_first, customers, strict=False)
    ]


def _grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> Mapping[str, list[Row]]:
    """Return the rows by key, in given order; an unknown key has none."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _changed_settings(active: ActiveFault) -> dict[str, Any]:
    """Return the settings of a fault that are not the defaults."""
    return active.fault.model_dump(exclude={"endpoint"}, exclude_defaults=True)


def _page(name: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    shared = {"Status": Status, "endpoints": ENDPOINTS, "now": now()}
    return HTMLResponse(_templates.get_template(name).render(shared, **values), status, HEADERS)


def _error_page(status: int, reasons: list[str]) -> HTMLResponse:
    return _page("error.html", {"status": status, "reasons": reasons}, status)


def _redirect_to_overview() -> RedirectResponse:
    return RedirectResponse("/", 303)
