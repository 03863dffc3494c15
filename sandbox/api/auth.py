"""Sign-in, and renewal with the refresh token."""

import hmac

from fastapi import APIRouter, HTTPException, Request, Security
from sqlalchemy import select

from nudgescribe import contract
from nudgescribe.contract import API_KEY_HEADER, Text, Tokens
from sandbox.api.security import (
    API_KEY,
    TOKEN,
    check_api_key,
    issue_token,
    verify_password,
    verify_token,
)
from sandbox.context import Caller, context_of
from sandbox.data.models import Account, User
from sandbox.middleware.audit import header

router = APIRouter(tags=["Authentication"])


@router.post(contract.AUTH, dependencies=[Security(API_KEY)])
def sign_in(body: contract.SignIn, request: Request) -> Tokens:
    """Exchange email, password and API key for an access and a refresh token."""
    with context_of(request).store.read() as session:
        query = select(User, Account).join(Account).where(User.email == body.email)
        row = session.execute(query).one_or_none()
    if row is None or not verify_password(body.password, row[0].password_hash):
        raise HTTPException(403, Text.AUTH_ERROR)
    user, account = row
    # The audit log has the user also if the key is a wrong one.
    request.state.caller = Caller(user.id, user.account_id, user.role_code)
    key = header(request.headers, API_KEY_HEADER) or ""
    if not hmac.compare_digest(key.encode(), account.api_key.encode()):
        raise HTTPException(403, Text.UNAUTHORIZED)
    return _tokens(request, request.state.caller)


@router.get(contract.AUTH, dependencies=TOKEN)
def renew_tokens(request: Request) -> Tokens:
    """Exchange a refresh token, sent as the bearer, for two new tokens."""
    caller = verify_token(context_of(request).keys, request, "refresh")
    check_api_key(request)
    return _tokens(request, caller)


def _tokens(request: Request, caller: Caller) -> Tokens:
    context = context_of(request)
    keys, settings = context.keys, context.settings
    return Tokens(
        access_token=issue_token(keys, "access", caller, settings.access_token_seconds),
        refresh_token=issue_token(keys, "refresh", caller, settings.refresh_token_seconds),
        token_type="Bearer",
        expires_in=settings.access_token_seconds,
    )
