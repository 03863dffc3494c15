"""Authentication by a bearer token, fetched on first use and renewed before it expires."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

import httpx
from pydantic import ValidationError

from nudgescribe import contract, errors
from nudgescribe.contract import AuthContext, SignIn, Text, Tokens
from nudgescribe.envelope import read_answer

RENEW_BEFORE_EXPIRY = 300.0
"""Seconds; longer than a call takes."""

_REFUSALS = {401: {Text.AUTH_ERROR, Text.UNAUTHORIZED}, 403: {Text.AUTH_ERROR}}
"""The texts that may refuse a token, by status. A 403 `Unauthorized` is about the API code, as the
service's pages say; gateways in front of a service say it of a token, with a 401.
"""

_NO_API = {404, 405, 501}
"""The statuses of a sign-in that only another service, or another path of one, answers with."""

Extensions = Mapping[str, Any]
"""Those of a httpx request: its time-outs and its deadline, which its sign-in shares."""


@dataclass(frozen=True)
class Credentials:
    """What Nudgescribe issues with an account. `profile_key` decrypts customer profiles."""

    email: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)
    api_code: str = field(repr=False)
    profile_key: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that every call carries beside its bearer token."""
        context = AuthContext(api_access=True, api_code=self.api_code)
        return {
            contract.API_KEY_HEADER: self.api_key,
            contract.AUTH_CONTEXT_HEADER: context.model_dump_json(),
        }


class TokenAuth(httpx.Auth):
    """Adds the bearer token; renews it if it is refused, and sends the call once more.

    That is safe for every call: one that was refused has changed nothing.
    """

    def __init__(
        self, base_url: str, credentials: Credentials, clock: Callable[[], float] = monotonic
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._url = self._base_url + contract.AUTH
        self._credentials = credentials
        self._clock = clock
        self._lock = Lock()
        self._tokens: Tokens | None = None
        self._renew_at = 0.0

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        token = yield from self._token(request.extensions)
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code not in _REFUSALS:
            return
        response.read()
        if errors.message_of(response) in _REFUSALS[response.status_code]:
            token = yield from self._token(request.extensions, refused=token)
            request.headers["authorization"] = f"Bearer {token}"
            yield request

    def _token(
        self, extensions: Extensions, refused: str | None = None
    ) -> Generator[httpx.Request, httpx.Response, str]:
        # Threads share one token: whoever holds the lock renews it, the others find it fresh.
        with self._lock:
            tokens = self._tokens
            if tokens and tokens.access_token != refused and self._clock() < self._renew_at:
                return tokens.access_token
            if tokens and refused is None:
                response = yield self._refresh(tokens, extensions)
                if response.is_error:
                    response = yield self._sign_in(extensions)
            else:
                response = yield self._sign_in(extensions)
            response.read()
            if response.is_redirect or response.status_code in _NO_API:
                said = f"{contract.AUTH} answered {response.status_code}"
                raise errors.WrongAddress(
                    f"There is no Nudgescribe API at {self._base_url}: {said}."
                )
            if response.is_error:
                raise errors.from_response(response)
            self._tokens = _parsed(response)
            lifetime = self._tokens.expires_in
            self._renew_at = self._clock() + lifetime - min(RENEW_BEFORE_EXPIRY, lifetime / 2)
            return self._tokens.access_token

    def _sign_in(self, extensions: Extensions) -> httpx.Request:
        who = SignIn(email=self._credentials.email, password=self._credentials.password)
        return httpx.Request(
            "POST",
            self._url,
            headers={"content-type": "application/json", **self._credentials.headers},
            content=who.model_dump_json(),
            extensions=extensions,
        )

    def _refresh(self, tokens: Tokens, extensions: Extensions) -> httpx.Request:
        bearer = {"authorization": f"Bearer {tokens.refresh_token}"}
        headers = {**self._credentials.headers, **bearer}
        return httpx.Request("GET", self._url, headers=headers, extensions=extensions)


def _parsed(response: httpx.Response) -> Tokens:
    try:
        return read_answer(Tokens, response.content)
    except ValidationError as error:
        raise errors.mismatch(contract.AUTH, error) from None
