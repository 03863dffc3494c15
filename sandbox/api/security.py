"""Who may call: passwords, tokens, header rules in the contract's order, signed links."""

import hashlib
import hmac
from collections.abc import Callable, Coroutine
from secrets import token_bytes
from time import time
from typing import Any, Literal

import jwt
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError

from nudgescribe.contract import AUTH_CONTEXT_HEADER, CLIENT_IP_HEADER, AuthContext, Claims, Text
from sandbox.context import context_of
from sandbox.errors import Refusal
from sandbox.settings import Keys

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
ALGORITHM = "HS256"
PASSWORD_COST = 2**14
"""How much work a guess at a password is; a hash names its own, so that this may change."""


def hash_password(password: str) -> str:
    salt = token_bytes(16)
    return f"{PASSWORD_COST}:{salt.hex()}:{_digest(password, salt, PASSWORD_COST)}"


def password_fits(password: str, hashed: str) -> bool:
    cost, salt, digest = hashed.split(":")
    return hmac.compare_digest(_digest(password, bytes.fromhex(salt), int(cost)), digest)


def _digest(password: str, salt: bytes, cost: int) -> str:
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=8, p=1).hex()


def issue_token(
    keys: Keys, kind: Literal["access", "refresh"], who: dict[str, str], seconds: int
) -> str:
    issued = int(time())
    # Two tokens of one second must differ, or renewing would hand out the old one again.
    claims = {
        **who,
        "type": kind,
        "iat": issued,
        "exp": issued + seconds,
        "jti": token_bytes(8).hex(),
    }
    return jwt.encode(claims, keys.jwt_key, algorithm=ALGORITHM)


def read_token(keys: Keys, request: Request, kind: Literal["access", "refresh"]) -> Claims:
    """The claims of the request's bearer token; a 403 `auth error` if it is not a valid one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise jwt.InvalidTokenError
        claims = Claims.model_validate(jwt.decode(token, keys.jwt_key, algorithms=[ALGORITHM]))
    except (jwt.InvalidTokenError, ValidationError):
        raise Refusal(403, Text.AUTH_ERROR) from None
    if claims.type != kind:
        raise Refusal(403, Text.AUTH_ERROR)
    return claims


class BearerRoute(APIRoute):
    """Content endpoints: the bearer token alone. Identity is settled before the body is read."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            request.state.caller = who(self.identify(request))
            return await handle(request)

        return authenticated

    @staticmethod
    def identify(request: Request) -> Claims:
        return read_token(context_of(request).keys, request, "access")


class ThreeHeaderRoute(BearerRoute):
    """Campaign, message and rerun endpoints: api_code, then JWT, then api_access, then the ip."""

    @staticmethod
    def identify(request: Request) -> Claims:
        keys = context_of(request).keys
        try:
            context = AuthContext.model_validate_json(request.headers.get(AUTH_CONTEXT_HEADER, ""))
        except ValidationError:
            raise Refusal(403, Text.UNAUTHORIZED) from None
        if not hmac.compare_digest(context.api_code.encode(), keys.api_code.encode()):
            raise Refusal(403, Text.UNAUTHORIZED)
        claims = read_token(keys, request, "access")
        if not context.api_access or CLIENT_IP_HEADER not in request.headers:
            raise Refusal(403, Text.UNAUTHORIZED)
        return claims


def who(claims: Claims) -> dict[str, str]:
    """The claims that say who somebody is."""
    return claims.model_dump(include={"user_id", "account_id", "role_code"})


def account_of(request: Request) -> str:
    """The account of the caller; every query is scoped to it."""
    return request.state.caller["account_id"]


def sign_link(keys: Keys, path: str, expires: int) -> str:
    return hmac.new(keys.link_key.encode(), f"{path}?{expires}".encode(), "sha256").hexdigest()


def link_is_valid(keys: Keys, path: str, expires: int, signature: str) -> bool:
    wanted = sign_link(keys, path, expires)
    return expires >= time() and hmac.compare_digest(wanted.encode(), signature.encode())
