"""Calls of a CRM's HTTP API: what its answers mean, without a word of what they hold."""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Self, TypeVar

import httpx
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
)

from blocks.crm.source import SourceError, SourceUnavailable
from nudgescribe import errors
from nudgescribe.deadline import Transport, within
from nudgescribe.links import proxy_for, tls

A = TypeVar("A", bound=BaseModel)
Explain = Callable[[httpx.Response], SourceError | None]

TIMEOUT = httpx.Timeout(120, connect=10)
CALL_SECONDS = 900.0
"""The whole of a call, however its answer dribbles in."""
_CODE = re.compile(r"[A-Za-z][A-Za-z_]{1,59}")
_TOKEN = re.compile(r"[!-~]+")


class Api:
    """A vendor's API. A context manager; threads may share it.

    Every call names what it is `about` for its errors: SourceUnavailable if another try may do,
    which is left to the caller, else SourceError. `explain` knows the vendor's own refusals.
    """

    def __init__(
        self,
        vendor: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        explain: Explain = lambda _: None,
    ) -> None:
        self._vendor = vendor
        self._explain = explain
        self._http = httpx.Client(
            base_url=base_url,
            headers=headers,
            auth=auth,
            timeout=TIMEOUT,
            transport=Transport(tls(), proxy_for(base_url)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def send(self, method: str, path: str, about: str, **options: Any) -> httpx.Response:
        """The answer, a good one; `options` are httpx's."""
        with self._connection(about):
            response = self._http.request(method, path, **options)
        self._check(response, about)
        return response

    def fetch(self, answer: type[A], method: str, path: str, about: str, **options: Any) -> A:
        """Like `send`, read as an `answer`."""
        response = self.send(method, path, about, **options)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            if error.errors()[0]["type"] == "json_invalid":
                problem = f"{self._vendor}'s answer on {about} is no JSON."
                raise SourceUnavailable(problem) from None
            problem = errors.mismatch(f"{self._vendor} on {about}", error).problem
            raise SourceError(problem) from None

    def download(
        self, path: str, about: str, target: BinaryIO, params: dict[str, Any]
    ) -> httpx.Headers:
        """Writes an answer's body to `target` and returns its headers."""
        with self._connection(about), self._http.stream("GET", path, params=params) as response:
            if not response.is_success:
                response.read()
            self._check(response, about)
            for block in response.iter_bytes():
                target.write(block)
        return response.headers

    @contextmanager
    def _connection(self, about: str) -> Generator[None]:
        with within(CALL_SECONDS) as over:
            try:
                yield
            except httpx.RequestError as error:
                why = f"not within {CALL_SECONDS:g} seconds" if over() else type(error).__name__
                raise SourceUnavailable(
                    f"{self._vendor} gave no answer on {about}: {why}."
                ) from None

    def _check(self, response: httpx.Response, about: str) -> None:
        if response.is_success:
            return
        if explained := self._explain(response):
            raise explained
        status, code = response.status_code, code_of(response)
        said = f"{status} {code}".rstrip()
        if isinstance(general := errors.from_response(response), errors.TransientError):
            raise unavailable(f"{self._vendor} answered {said} on {about}.", general.retry_after)
        if status in (401, 403):
            raise SourceError(
                f"{self._vendor} refuses access to {about}: {said}. "
                "Check the credentials and what they are allowed to read."
            )
        if status == 404:
            raise SourceError(f"{self._vendor} does not know {about}: {said}.")
        raise SourceError(f"{self._vendor} answered {said} on {about}.")


def unavailable(problem: str, retry_after: float | None) -> SourceUnavailable:
    """To be tried again, after `retry_after` seconds if the vendor named them."""
    error = SourceUnavailable(problem)
    error.retry_after = retry_after
    return error


class _Refusal(BaseModel):
    code: str = Field(
        default="", validation_alias=AliasChoices("policyName", "category", "errorCode", "error")
    )


_REFUSAL: TypeAdapter[_Refusal | list[_Refusal]] = TypeAdapter(_Refusal | list[_Refusal])


def code_of(response: httpx.Response) -> str:
    """The vendor's code for a refusal, "" if there is none."""
    try:
        said = _REFUSAL.validate_json(response.content)
    except ValidationError:
        return ""
    if isinstance(said, list):
        return shown(said[0].code) if said else ""
    return shown(said.code)


def shown(code: str) -> str:
    """A code as it may be shown: what does not look like one may be a customer's value."""
    return code if _CODE.fullmatch(code) else ""


def bearer(token: SecretStr) -> dict[str, str]:
    """The header that carries a token."""
    secret = token.get_secret_value()
    if not _TOKEN.fullmatch(secret):
        raise SourceError("The token is empty or holds characters no token has.")
    return {"authorization": f"Bearer {secret}"}


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secure(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("is no URL") from None
    if parts.host and (parts.scheme == "https" or is_loopback(parts.host)):
        return url
    raise ValueError("must begin with https://")


SecureUrl = Annotated[str, AfterValidator(_secure)]
"""Where secrets may be sent: https, or this machine."""
