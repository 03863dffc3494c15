"""The errors of Nudgeflow: one base, and one class per outcome of a call, with advice."""

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from traceback import walk_tb
from typing import ClassVar, cast

import httpx
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nudgescribe.contract import ErrorBody, MalformedRecord, Text, wrong_fields
from nudgescribe.envelope import open_envelope
from nudgescribe.names import wire_name

LONGEST_TEXT = 200
LONGEST_NAME = 80
LONGEST_PROBLEM = 1500
MOST_NAMED = 10
_PLURALS = {"is": "are", "was": "were", "occurs": "occur"}


def cut(text: str, length: int) -> str:
    """Return a text of at most `length` characters; … stands for what was cut off."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def first_ten(names: Iterable[object], separator: str = ", ") -> str:
    """Return the first ten names, each on one line and cut if it is long, and how many more there
    are.
    """
    rest = iter(names)
    named = [cut(_visible(str(name)), LONGEST_NAME) for name in islice(rest, MOST_NAMED)]
    more = sum(1 for _ in rest)
    return separator.join(named) + (f" and {more:,} more" if more else "")


def counted(number: int, noun: str = "", verb: str = "") -> str:
    """Format a number of things and the verb that follows, both in the singular for one: "1 row
    was", "2 rows were", and without a noun "none was".
    """
    many = number > 1 if not noun else number != 1
    said = f"{number:,}" if number or noun else "none"
    thing = noun and f" {noun}{'s' if many else ''}"
    return f"{said}{thing}" + (verb and f" {_PLURALS[verb] if many else verb}")


def describe_invalid(error: ErrorDetails) -> str:
    """Return what is wrong with a value, without pydantic's prefix for validators."""
    return error["msg"].removeprefix("Value error, ")


def _visible(name: str) -> str:
    """Return a name with escapes for characters that do not show."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in name
    )


class NudgeflowError(Exception):
    """Base of all our errors: a problem, and advice on what to do about it.

    The problem is on one line and not long, whatever the names and texts in it.
    """

    advice: ClassVar[str] = ""

    def __init__(self, problem: str) -> None:
        self.problem = cut(" ".join(problem.splitlines()), LONGEST_PROBLEM)
        super().__init__(self.problem)  # an error is unpickled from this argument

    def __str__(self) -> str:
        return f"{self.problem} {self.advice}".rstrip()

    # Prefect stores errors together with their context, even a suppressed one, and libraries quote
    # rows and addresses in theirs.
    @property
    def __context__(self) -> BaseException | None:
        return None if self.__suppress_context__ else super().__context__

    @__context__.setter
    def __context__(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, context: BaseException | None
    ) -> None:
        vars(BaseException)["__context__"].__set__(self, context)


@contextmanager
def translate_foreign_errors(what: str, kind: type[NudgeflowError]) -> Generator[None]:
    """Raise `kind` about `what` for an error of a library, a panic included.

    Its text is left out, since it may quote values; its class and the line that met it are told.
    """
    try:
        yield
    except NudgeflowError:
        raise
    except BaseException as error:
        # A panic of Rust is no Exception, and each library has a class of its own for it.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        *_, (frame, line) = walk_tb(error.__traceback__)
        met = f"{Path(frame.f_code.co_filename).name}, line {line}"
        raise kind(f"{what} cannot be read: {type(error).__name__} in {met}.") from None


class Retryable(NudgeflowError):
    """Worth another try: of the call by `RetryPolicy` or `poll`, then of the task.

    `retry_after` is the wait in seconds that was asked for, None if no wait was.
    """

    retry_after: float | None = None

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        if retry_after is not None:
            self.retry_after = retry_after


class ApiError(NudgeflowError):
    """A call of Nudgescribe that failed."""


class NotFound(ApiError):
    """The account has no such campaign, group, field or file."""

    advice = "Check the id, and that it belongs to the account of this block."


class NotPublished(ApiError):
    """The campaign is in a state in which no rerun can begin and no messages can be fetched."""

    advice = "Publish the campaign, or wait for its open run to end, then start again."


class UnpublishedMessages(ApiError):
    """The campaign has messages that are not published, so no rerun can begin."""

    advice = "Publish all messages of the campaign, then start again."


class AuthError(ApiError):
    """The service does not accept the account's credentials."""

    advice = "Check email, password, api key and api code of the account block."


class BadRequest(ApiError):
    """The service refused the call for another reason than those above."""

    advice = "The request itself was refused; repeating it will not help."


class TooLarge(ApiError):
    """The service takes no body of this size."""

    advice = "Send less at once."


class ContractMismatch(ApiError):
    """An answer does not fit the contract."""

    advice = (
        "The service's answer differs from nudgescribe/contract.py: correct a name in names.py, "
        "what lies around the answer in envelope.py."
    )


class ConnectionFailed(ApiError, Retryable):
    """A call got no answer, or not the whole of it."""

    advice = "The service may or may not have seen the request; look before repeating it."


class ServiceUnreachable(ConnectionFailed):
    """Nobody answers at the account's address, from the first call on."""

    advice = (
        "Nothing was changed. Correct base_url in the account block, or see that the service runs "
        "and that this machine may reach it; then start again."
    )


class WrongAddress(ApiError):
    """Something answers at the account's address, and it is not the API."""

    advice = (
        "Correct base_url in the account block: it is the URL to which each call adds /v1/ and "
        "more, such as https://client-api.nudgescribe.com."
    )


class LinkFailed(ApiError, Retryable):
    """A download by a signed link that failed; a new link may work."""

    advice = "Check that this machine may reach the service's object store."


class ServerError(ApiError, Retryable):
    """The service failed to handle the call."""

    advice = "Try again later; if it stays, report it to Nudgescribe."


class QuotaExceeded(ApiError, Retryable):
    """The account has used up its quota, or calls too often."""

    advice = "Wait for the quota's next window or have it raised."


_BY_TEXT: dict[str, type[ApiError]] = {
    Text.NOT_PUBLISHED: NotPublished,
    Text.UNPUBLISHED_MESSAGES: UnpublishedMessages,
    # The service's pages do not agree on the status of these: the text counts.
    Text.AUTH_ERROR: AuthError,
    Text.UNAUTHORIZED: AuthError,
    Text.CAMPAIGN_NOT_FOUND: NotFound,
    Text.CAMPAIGN_DETAILS_NOT_FOUND: NotFound,
    Text.INVALID_WORKSPACE: NotFound,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    403: AuthError,
    404: NotFound,
    413: TooLarge,
    429: QuotaExceeded,
}


def from_response(response: httpx.Response) -> ApiError:
    """Return the error that a 4xx or 5xx answer stands for; its body must have been read."""
    text = message_of(response)
    fallback = ServerError if response.status_code >= 500 else BadRequest
    by_status = _BY_STATUS.get(response.status_code, fallback)
    kind = by_status if response.status_code >= 500 else _BY_TEXT.get(text, by_status)
    request = response.request
    said = f": {text}" if text else "."
    if text and text[-1] not in ".!?":
        said += "."
    error = kind(f"{request.method} {request.url.path} answered {response.status_code}{said}")
    if isinstance(error, Retryable):
        error.retry_after = retry_after(response.headers)
    return error


def message_of(response: httpx.Response) -> str:
    """Return the error text of an answer, "" if it has none.

    Never its whole body, which may repeat what was sent: at most `LONGEST_TEXT` characters.
    """
    try:
        body: object = response.json()
    except ValueError:
        return ""
    for each in (body, open_envelope(ErrorBody, body)):
        texts = cast("dict[str, object]", each if isinstance(each, dict) else {})
        for name in (wire_name(ErrorBody.__name__, "message"), "error", "detail"):
            text = texts.get(name)
            if isinstance(text, str):
                return text[:LONGEST_TEXT]
    return ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the Retry-After header asks for, None if it asks for none.

    A time (RFC 9110, section 10.2.3) counts from the answer's own Date: our clock may differ.
    Prefect's server asks for fractions of a second.
    """
    asked = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", asked):
        return float(asked)
    try:
        when, now = (parsedate_to_datetime(time) for time in (asked, headers.get("date", "")))
        return max(0.0, when.timestamp() - now.timestamp())
    except ValueError:
        return None


def mismatch(path: str, error: ValidationError) -> ContractMismatch:
    """Return an error that names the fields that do not fit the model, and not their values."""
    fields = first_ten(wrong_fields(error))
    return ContractMismatch(f"The answer of {path} does not fit the contract: {fields}.")


def malformed(what: str, record: MalformedRecord) -> ContractMismatch:
    """Return an error that names the fields of a record that do not fit the contract."""
    return ContractMismatch(f"{what} does not fit the contract: {first_ten(record.fields)}.")
