"""The page for people: campaigns and their runs, background jobs, faults and quotas.

Its buttons do what `sandbox.control` does, and what they are refused comes back as a page.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Form, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from nudgescribe import contract
from nudgescribe.contract import Status, Text
from sandbox.api import admin
from sandbox.api.admin import Id, from_here
from sandbox.api.security import Handler
from sandbox.context import context_of
from sandbox.data.models import Account, Campaign, Job, Message, Run, Usage, Workspace, now
from sandbox.engine import quota, reruns
from sandbox.errors import Refusal
from sandbox.middleware.faults import Fault, Switch
from sandbox.settings import Settings

JOBS_SHOWN = 20
API = "/v1/"
PATHS = sorted(
    path for path in vars(contract).values() if isinstance(path, str) and path.startswith(API)
)
ENDPOINTS = (*PATHS, "/exports/", API)
"""Where a fault can be switched on here."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
}
"""Whatever a text holds, it neither runs nor loads, and no other page can frame these buttons."""

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
    """A refusal is answered as a page with its reason."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def readable(request: Request) -> Response:
            try:
                return await handle(request)
            except Refusal as refusal:
                return _refused(refusal.status, [refusal.text])
            except RequestValidationError as error:
                problems = [f"{each['loc'][-1]}: {each['msg']}." for each in error.errors()]
                return _refused(400, problems)

        return readable


router = APIRouter(
    route_class=PageRoute, dependencies=[Depends(from_here)], include_in_schema=False
)


def quota_of(messages: Annotated[str, Form()] = "") -> admin.Quota:
    """The quota a form asks for; a blank is none."""
    try:
        return admin.Quota.model_validate({"messages": messages.strip() or None})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


@router.get("/")
def overview(request: Request) -> HTMLResponse:
    context = context_of(request)
    with context.store.read() as session:
        values = {**_campaigns(session), **_quotas(session, context.settings)}
        jobs = session.scalars(select(Job).order_by(Job.number.desc()).limit(JOBS_SHOWN)).all()
    switches = admin.faults_of(request).all()
    faults = [(switch, _settings_of(switch)) for switch in switches]
    return _page("overview.html", {**values, "jobs": jobs, "faults": faults})


@router.get("/page/campaigns/{campaign_id}/runs/{run_number}")
def run_segments(campaign_id: Id, run_number: Number, request: Request) -> HTMLResponse:
    with context_of(request).store.read() as session:
        campaign = session.get(Campaign, campaign_id)
        if campaign is None:
            raise Refusal(404, Text.CAMPAIGN_NOT_FOUND)
        run = session.get(Run, (campaign_id, run_number))
        if run is None:
            raise Refusal(404, "Run not found.")
        query = select(Message).where(
            Message.campaign_id == campaign_id, Message.run_number == run_number
        )
        messages = reruns.in_order(session.scalars(query))
    return _page("run.html", {"campaign": campaign, "run": run, "messages": messages})


@router.post("/page/campaigns/{campaign_id}/approve")
def approve(campaign_id: Id, request: Request) -> RedirectResponse:
    admin.approve(campaign_id, request)
    return _back()


@router.post("/page/accounts/{account_id}/quota")
def set_quota(
    account_id: Id, wanted: Annotated[admin.Quota, Depends(quota_of)], request: Request
) -> RedirectResponse:
    admin.set_quota(account_id, wanted, request)
    return _back()


@router.post("/page/faults")
def put_fault(fault: Annotated[Fault, Form()], request: Request) -> RedirectResponse:
    admin.put_fault(fault, request)
    return _back()


@router.post("/page/faults/clear")
def clear_faults(request: Request) -> RedirectResponse:
    admin.clear_faults(request)
    return _back()


def _campaigns(session: Session) -> dict[str, Any]:
    """All accounts, and by their ids what belongs to them; runs newest first."""
    workspaces = session.scalars(select(Workspace).order_by(Workspace.name, Workspace.id))
    campaigns = session.scalars(select(Campaign).order_by(Campaign.name, Campaign.id))
    runs = session.scalars(select(Run).order_by(Run.run_number.desc()))
    return {
        "accounts": session.scalars(select(Account).order_by(Account.id)).all(),
        "workspaces": _grouped(workspaces, lambda workspace: workspace.account_id),
        "campaigns": _grouped(campaigns, lambda campaign: campaign.workspace_id),
        "runs": _grouped(runs, lambda run: run.campaign_id),
    }


def _quotas(session: Session, settings: Settings) -> dict[str, Any]:
    """What accounts have used in the current window, and when it ends."""
    window = quota.current_window(settings)
    used = select(Usage.account_id, Usage.messages).where(Usage.window == window.number)
    return {"used": dict(session.execute(used).tuples().all()), "window_end": window.end}


def _grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> Mapping[str, list[Row]]:
    """The rows by key, in given order; none for a key there is not."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _settings_of(switch: Switch) -> dict[str, Any]:
    """What a fault does, without what is as usual."""
    return switch.fault.model_dump(exclude={"endpoint"}, exclude_defaults=True)


def _page(name: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    shared = {"Status": Status, "endpoints": ENDPOINTS, "now": now()}
    return HTMLResponse(_templates.get_template(name).render(shared, **values), status, HEADERS)


def _refused(status: int, reasons: list[str]) -> HTMLResponse:
    return _page("refused.html", {"status": status, "reasons": reasons}, status)


def _back() -> RedirectResponse:
    """To the overview, by GET."""
    return RedirectResponse("/", 303)
