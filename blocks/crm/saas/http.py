"""Calls of a CRM's HTTP API, and its errors, which hold nothing of what it answers."""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
)

from blocks.crm.errors import SourceError, SourceUnavailable
from nudgescribe import errors
from nudgescribe.bases import Closing
from nudgescribe.transport import DeadlineExceeded, open_transport

M = TypeVar("M", bound=BaseModel)
Explain = Callable[[httpx.Response], SourceError | None]

TIMEOUT = httpx.Timeout(120, connect=10)
CALL_SECONDS = 900.0
"""For the body of a call, however it dribbles in."""
_PASSING = (408, 423, 429, 477)
"""What passes by itself: too late, locked, too many calls, HubSpot's for a moved account."""
_CODE = re.compile(r"[A-Za-z][A-Za-z_]{1,59}")
_TOKEN = re.compile(r"[!-~]+")


class Api(Closing):
    """A vendor's API. A context manager; threads may share it.

    Every call says what it is `about`, for its errors: SourceUnavailable if another try may help
    (the caller's to make), else SourceError. `explain` returns an error of the vendor's own for an
    answer, None for a general one.
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
            transport=open_transport(base_url, CALL_SECONDS),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def send(self, method: str, path: str, about: str, **options: Any) -> httpx.Response:
        """Send a call with httpx's `options` and return its answer, one without an error."""
        with self._connection(about):
            response = self._http.request(method, path, **options)
        self._check(response, about)
        return response

    def fetch(self, model: type[M], method: str, path: str, about: str, **options: Any) -> M:
        """Send a call as `send` does, and read its answer as a `model`."""
        response = self.send(method, path, about, **options)
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            if error.errors()[0]["type"] == "json_invalid":
                problem = f"{self._vendor}'s answer on {about} is no JSON."
                raise SourceUnavailable(problem) from None
            problem = errors.mismatch(f"{self._vendor} on {about}", error).problem
            raise SourceError(problem) from None

    def download(
        self, path: str, about: str, target: BinaryIO, params: dict[str, Any]
    ) -> httpx.Headers:
        """Write the body of an answer to `target` and return its headers."""
        with self._connection(about), self._http.stream("GET", path, params=params) as response:
            if not response.is_success:
                response.read()
            self._check(response, about)
            for block in response.iter_bytes():
                target.write(block)
        return response.headers

    @contextmanager
    def _connection(self, about: str) -> Generator[None]:
        try:
            yield
        except httpx.RequestError as error:
            late = isinstance(error, DeadlineExceeded)
            why = f"not {error}" if late else type(error).__name__
            raise SourceUnavailable(f"{self._vendor} gave no answer on {about}: {why}.") from None

    def _check(self, response: httpx.Response, about: str) -> None:
        if response.is_success:
            return
        if explained := self._explain(response):
            raise explained
        status, code = response.status_code, code_of(response)
        said = f"{status} {code}".rstrip()
        wait = errors.retry_after(response.headers)
        if status in _PASSING or status >= 500 or (status >= 400 and wait is not None):
            raise SourceUnavailable(f"{self._vendor} answered {said} on {about}.", wait)
        if status in (401, 403):
            raise SourceError(
                f"{self._vendor} refuses access to {about}: {said}. "
                "Check the credentials and what they are allowed to read."
            )
        if status == 404:
            raise SourceError(f"{self._vendor} does not know {about}: {said}.")
        raise SourceError(f"{self._vendor} answered {said} on {about}.")


class _ErrorBody(BaseModel):
    code: str = Field(
        default="", validation_alias=AliasChoices("policyName", "category", "errorCode", "error")
    )


_ERROR_BODY: TypeAdapter[_ErrorBody | list[_ErrorBody]] = TypeAdapter(_ErrorBody | list[_ErrorBody])


def code_of(response: httpx.Response) -> str:
    """Return the code that an answer gives for its error, "" if it gives none."""
    try:
        said = _ERROR_BODY.validate_json(response.content)
    except ValidationError:
        return ""
    if isinstance(said, list):
        return shown(said[0].code) if said else ""
    return shown(said.code)


def shown(code: str) -> str:
    """Return a code, or "" for a text that is none: it may be a customer's value."""
    return code if _CODE.fullmatch(code) else ""


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token. Raises SourceError if it is empty or no token."""
    if not _TOKEN.fullmatch(token):
        raise SourceError("The token is empty or holds characters that no token has.")
    return {"authorization": f"Bearer {token}"}
