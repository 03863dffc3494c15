"""Signing in, and renewing with the refresh token."""

import hmac

from fastapi import APIRouter, Request
from sqlalchemy import select

from nudgescribe import contract
from nudgescribe.contract import API_KEY_HEADER, Text, Tokens
from sandbox.api.security import issue_token, password_fits, read_token, who
from sandbox.context import context_of
from sandbox.data.models import Account, User
from sandbox.errors import Refusal

router = APIRouter()


@router.post(contract.AUTH)
def sign_in(body: contract.SignIn, request: Request) -> Tokens:
    with context_of(request).store.read() as session:
        query = select(User, Account).join(Account).where(User.email == body.email)
        found = session.execute(query).one_or_none()
    if found is None or not password_fits(body.password, found.User.password_hash):
        raise Refusal(403, Text.AUTH_ERROR)
    api_key = request.headers.get(API_KEY_HEADER, "")
    if not hmac.compare_digest(api_key.encode(), found.Account.api_key.encode()):
        raise Refusal(403, Text.UNAUTHORIZED)
    user: User = found.User
    return _tokens(
        request,
        {"user_id": user.id, "account_id": user.account_id, "role_code": user.role_code},
    )


@router.get(contract.AUTH)
def renew(request: Request) -> Tokens:
    """The bearer is the refresh token here; both tokens of the answer are new."""
    claims = read_token(context_of(request).keys, request, "refresh")
    return _tokens(request, who(claims))


def _tokens(request: Request, caller: dict[str, str]) -> Tokens:
    context = context_of(request)
    keys, settings = context.keys, context.settings
    request.state.caller = caller
    return Tokens(
        access_token=issue_token(keys, "access", caller, settings.access_token_seconds),
        refresh_token=issue_token(keys, "refresh", caller, settings.refresh_token_seconds),
        token_type="Bearer",
        expires_in=settings.access_token_seconds,
    )
