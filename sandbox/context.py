"""What a request is handled with: the service's parts, and the authenticated caller."""

from dataclasses import dataclass

from fastapi import Request
from sqlalchemy import select

from sandbox.data.models import Campaign, Store, Workspace
from sandbox.data.page_files import PageFiles
from sandbox.settings import Keys, Settings


@dataclass(frozen=True)
class Context:
    """The parts of one service, which requests and jobs share."""

    settings: Settings
    keys: Keys
    store: Store
    page_files: PageFiles


@dataclass(frozen=True)
class Caller:
    """Who an access or refresh token was issued to."""

    user_id: str
    account_id: str
    role_code: str


def open_context(settings: Settings) -> Context:
    """Return the service's parts for these settings; make data folder and database if needed."""
    keys = settings.keys  # makes the data folder
    store, page_files = Store(settings.database_url), PageFiles(settings.exports_url)
    with store.read() as session:
        campaigns = select(Campaign.id, Workspace.account_id).join(Workspace)
        page_files.move_below_accounts(dict(session.execute(campaigns).all()))
    return Context(settings, keys, store, page_files)


def context_of(request: Request) -> Context:
    """Return the context of the service that has received the request."""
    return request.app.state.context


def caller_of(request: Request) -> Caller:
    """Return the caller, whom the route's class has authenticated."""
    return request.state.caller


def account_of(request: Request) -> str:
    """Return the id of the caller's account; every query is scoped to it."""
    return caller_of(request).account_id
