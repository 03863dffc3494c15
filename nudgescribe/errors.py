"""Every error of Nudgeflow: one base, one class per outcome, each with what to do about it."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import ClassVar, cast

import httpx
from pydantic import ValidationError

from nudgescribe.contract import Text

LONGEST_TEXT = 200


class NudgeflowError(Exception):
    """Base of all our errors: a problem, and advice on what to do about it."""

    advice: ClassVar[str] = ""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{problem} {self.advice}".rstrip())

    # Who keeps an error keeps its context as well, also one that is suppressed: Prefect in results,
    # with the rows and addresses that libraries quote.
    @property
    def __context__(self) -> BaseException | None:
        return None if self.__suppress_context__ else super().__context__

    @__context__.setter
    def __context__(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, context: BaseException | None
    ) -> None:
        vars(BaseException)["__context__"].__set__(self, context)


class Passing(NudgeflowError):
    """Worth another try; `retry_after` is the wait in seconds that was asked for, if any."""

    retry_after: float | None = None


class ApiError(NudgeflowError):
    """A call to Nudgescribe that did not give an answer to work with."""


class NotFound(ApiError):
    advice = "Check the id, and that it belongs to the account of this block."


class NotPublished(ApiError):
    advice = "Publish the campaign, or wait for its open run to end, then start again."


class UnpublishedMessages(ApiError):
    advice = "Publish all messages of the campaign, then start again."


class AuthError(ApiError):
    advice = "Check email, password, api key and api code of the account block."


class BadRequest(ApiError):
    advice = "The request itself was refused; repeating it will not help."


class ContractMismatch(ApiError):
    advice = "The service's answer differs from nudgescribe/contract.py: correct the name there."


class TransientError(ApiError, Passing):
    """Worth asking again."""


class ConnectionFailed(TransientError):
    advice = "The service may or may not have seen the request; look before repeating it."


class LinkFailed(TransientError):
    """What a signed link leads to could not be had as a whole; another link may do."""

    advice = "Check that this machine may reach the service's object store."


class ServerError(TransientError):
    advice = "Try again later; if it stays, report it to Nudgescribe."


class QuotaExceeded(TransientError):
    advice = "Wait for the quota's next window or have it raised."


_BY_TEXT: dict[str, type[ApiError]] = {
    Text.NOT_PUBLISHED: NotPublished,
    Text.UNPUBLISHED_MESSAGES: UnpublishedMessages,
    # The service's pages list these under 401 as well as under 404.
    Text.CAMPAIGN_NOT_FOUND: NotFound,
    Text.INVALID_WORKSPACE: NotFound,
}
_BY_STATUS: dict[int, type[ApiError]] = {403: AuthError, 404: NotFound, 429: QuotaExceeded}


def from_response(response: httpx.Response) -> ApiError:
    """The error an answer with a 4xx or 5xx status stands for; the body must have been read."""
    text = message_of(response)
    fallback = ServerError if response.status_code >= 500 else BadRequest
    kind = _BY_TEXT.get(text) or _BY_STATUS.get(response.status_code, fallback)
    request = response.request
    said = f": {text}" if text else "."
    if text and text[-1] not in ".!?":
        said += "."
    error = kind(f"{request.method} {request.url.path} answered {response.status_code}{said}")
    if isinstance(error, TransientError):
        error.retry_after = wait_asked_by(response.headers)
    return error


def message_of(response: httpx.Response) -> str:
    """The error text of an answer, never its whole body: that may repeat what was sent."""
    try:
        body: object = response.json()
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    texts = cast("dict[str, object]", body)
    for name in ("message", "error", "detail"):
        text = texts.get(name)
        if isinstance(text, str):
            return text[:LONGEST_TEXT]
    return ""


def wait_asked_by(headers: Mapping[str, str]) -> float | None:
    """What Retry-After asks for: seconds, or a time by the service's clock, not by ours."""
    asked = headers.get("retry-after", "")
    if asked.isdecimal():
        return float(asked)
    try:
        when, now = (parsedate_to_datetime(time) for time in (asked, headers.get("date", "")))
        return max(0.0, when.timestamp() - now.timestamp())
    except ValueError:
        return None


def mismatch(path: str, error: ValidationError) -> ContractMismatch:
    """Says which fields of an answer do not fit its model, and never what they held."""
    details = error.errors(include_input=False, include_context=False, include_url=False)
    places = (f"{'.'.join(map(str, each['loc'])) or 'body'} ({each['type']})" for each in details)
    return ContractMismatch(f"The answer of {path} does not fit the contract: {', '.join(places)}.")
