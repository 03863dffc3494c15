"""Authentication: passwords, tokens, the headers in the contract's order, signed links."""

import hashlib
import hmac
from base64 import urlsafe_b64decode
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict
from secrets import token_bytes
from time import time
from typing import Annotated, Any, Literal

import jwt
from fastapi import Depends, Header, HTTPException, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import ValidationError
from pydantic.json_schema import SkipJsonSchema
from starlette.concurrency import run_in_threadpool

from nudgescribe.contract import (
    API_KEY_HEADER,
    AUTH_CONTEXT_HEADER,
    CLIENT_IP_HEADER,
    AuthContext,
    Claims,
    Text,
    is_client_ip,
)
from sandbox.context import Caller, account_of, context_of
from sandbox.data.models import Account
from sandbox.middleware.audit import header
from sandbox.middleware.body_limit import JSON, media_type
from sandbox.settings import Keys

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
TokenType = Literal["access", "refresh"]
ALGORITHM = "HS256"
PASSWORD_COST = 2**14
"""scrypt's cost parameter for new hashes; each hash names its own, so that this may change."""


def hash_password(password: str) -> str:
    """Return `cost:salt:digest` of a password, under a new salt."""
    salt = token_bytes(16)
    return f"{PASSWORD_COST}:{salt.hex()}:{_digest(password, salt, PASSWORD_COST)}"


def verify_password(password: str, hashed: str) -> bool:
    """Return whether a password is the one that was hashed."""
    cost, salt, digest = hashed.split(":")
    return hmac.compare_digest(_digest(password, bytes.fromhex(salt), int(cost)), digest)


def _digest(password: str, salt: bytes, cost: int) -> str:
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=8, p=1).hex()


def account_secret(keys: Keys, account_id: str) -> bytes:
    """Return the secret that signs an account's tokens, derived from the service's own."""
    return hmac.digest(keys.jwt_key.encode(), account_id.encode(), "sha512")


def issue_token(keys: Keys, token_type: TokenType, caller: Caller, seconds: int) -> str:
    """Return a JWT for the caller that expires after `seconds`."""
    issued = int(time())
    claims = {
        **asdict(caller),
        "type": token_type,
        "iat": issued,
        "exp": issued + seconds,
        # Two tokens of one second must differ, or renewing would hand out the old one again.
        "jti": token_bytes(8).hex(),
    }
    return jwt.encode(claims, account_secret(keys, caller.account_id), algorithm=ALGORITHM)


def verify_token(keys: Keys, request: Request, token_type: TokenType) -> Caller:
    """Return the caller that the bearer token names, and note it as the request's caller.

    Raises HTTPException, 403 `auth error`, unless the token is valid and of this type.
    """
    scheme, _, token = (header(request.headers, "authorization") or "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise jwt.InvalidTokenError
        secret = account_secret(keys, _claimed_account(token))
        claims = Claims.model_validate(jwt.decode(token, secret, algorithms=[ALGORITHM]))
    except (jwt.InvalidTokenError, ValidationError):
        raise HTTPException(403, Text.AUTH_ERROR) from None
    if claims.type != token_type:
        raise HTTPException(403, Text.AUTH_ERROR)
    # The audit log has the user also if the call is refused for another reason.
    request.state.caller = Caller(claims.user_id, claims.account_id, claims.role_code)
    return request.state.caller


def _claimed_account(token: str) -> str:
    """Return the account that a token names, which its signature is still to prove.

    Raises InvalidTokenError.
    """
    try:
        payload = token.split(".")[1]
        claims = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return Claims.model_validate_json(claims).account_id
    except (IndexError, ValueError):
        raise jwt.InvalidTokenError from None


def check_api_key(request: Request) -> None:
    """Check that the API key of an authenticated call is its account's; it may have none.

    Raises HTTPException, 403.
    """
    key = header(request.headers, API_KEY_HEADER)
    if key is None:
        return
    with context_of(request).store.read() as session:
        account = session.get(Account, account_of(request))
    if account is None or not hmac.compare_digest(key.encode(), account.api_key.encode()):
        raise HTTPException(403, Text.UNAUTHORIZED)


class BearerRoute(APIRoute):
    """Route of a content endpoint: checks who calls before the body is read, by the bearer token
    alone and by the API key if there is one.
    """

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            self.authenticate(request)
            await run_in_threadpool(check_api_key, request)  # it asks the database
            self.check_headers(request)
            return await handle(request)

        return authenticated

    @staticmethod
    def authenticate(request: Request) -> None:
        """Check who calls. Raises HTTPException, 403."""
        verify_token(context_of(request).keys, request, "access")

    @staticmethod
    def check_headers(request: Request) -> None:
        """Check the headers that do not authenticate. Raises HTTPException, 400."""


class ThreeHeaderRoute(BearerRoute):
    """Route of a campaign, message or rerun endpoint: three headers are checked before the body.

    Source: Nudgescribe's order is api_code, JWT, api_access, account; the address comes last.
    """

    @staticmethod
    def authenticate(request: Request) -> None:
        """Check who calls. Raises HTTPException, 403."""
        keys = context_of(request).keys
        try:
            sent = header(request.headers, AUTH_CONTEXT_HEADER) or ""
            context = AuthContext.model_validate_json(sent)
        except ValidationError:
            raise HTTPException(403, Text.UNAUTHORIZED) from None
        if not hmac.compare_digest(context.api_code.encode(), keys.api_code.encode()):
            raise HTTPException(403, Text.UNAUTHORIZED)
        verify_token(keys, request, "access")
        if not context.api_access or CLIENT_IP_HEADER not in request.headers:
            raise HTTPException(403, Text.UNAUTHORIZED)

    @staticmethod
    def check_headers(request: Request) -> None:
        """Check that the client's address is one. Raises HTTPException, 400."""
        if not is_client_ip(header(request.headers, CLIENT_IP_HEADER)):
            raise HTTPException(400, Text.INVALID_IP)


class RerunRoute(ThreeHeaderRoute):
    """Route of a rerun endpoint, whose body is declared as JSON."""

    @staticmethod
    def check_headers(request: Request) -> None:
        """Check address and content type. Raises HTTPException, 400."""
        ThreeHeaderRoute.check_headers(request)
        if media_type(request.headers) != JSON:
            raise HTTPException(400, Text.NOT_JSON)


# What follows declares the headers for the OpenAPI document; the routes' classes check them.

_IP = Header(
    alias=CLIENT_IP_HEADER,
    description="The IPv4 or IPv6 address that the call is made for; the audit log keeps it.",
    examples=["203.0.113.7"],
)


def _client_ip(client_ip: Annotated[str, _IP]) -> None:
    """Declare the client's address as required."""


def _optional_client_ip(client_ip: Annotated[str | SkipJsonSchema[None], _IP] = None) -> None:
    """Declare the client's address as one that may be missing."""


BEARER = HTTPBearer(
    bearerFormat="JWT",
    scheme_name="bearer",
    description="The access token of a sign-in; its renewal alone takes the refresh token.",
    auto_error=False,
)
API_KEY = APIKeyHeader(
    name=API_KEY_HEADER,
    scheme_name="apiKey",
    description="The account's API key. Sign-in needs it; elsewhere it may be missing, not wrong.",
    auto_error=False,
)
AUTH_CONTEXT = APIKeyHeader(
    name=AUTH_CONTEXT_HEADER,
    scheme_name="authContext",
    description='The API code as a JSON object: `{"api_access": true, "api_code": "…"}`.',
    auto_error=False,
)
TOKEN = [Security(BEARER), Security(API_KEY)]
"""What authenticates renewal."""
CONTENT_HEADERS = [*TOKEN, Depends(_optional_client_ip)]
THREE_HEADERS = [*TOKEN, Security(AUTH_CONTEXT), Depends(_client_ip)]


def require_together(alternatives: Iterable[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """Return the requirement of an operation whose schemes FastAPI lists as alternatives.

    They are all required; only the API key may be missing, unless it is the only one.
    """
    schemes = {name: scopes for each in alternatives for name, scopes in each.items()}
    without_key = {name: schemes[name] for name in schemes if name != API_KEY.scheme_name}
    return [each for each in (without_key, schemes) if each]


def sign_link(keys: Keys, path: str, user_id: str, expires: int) -> str:
    """Return the signature of a user's link to `path` until `expires`, in seconds since 1970."""
    signed = f"{path}?{expires}&{user_id}".encode()
    return hmac.new(keys.link_key.encode(), signed, "sha256").hexdigest()


def verify_link(keys: Keys, path: str, user_id: str, expires: int, signature: str) -> bool:
    """Return whether a link was signed here and has not expired."""
    expected = sign_link(keys, path, user_id, expires)
    return expires >= time() and hmac.compare_digest(expected.encode(), signature.encode())
