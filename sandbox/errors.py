"""Error answers in the words of the contract, and failures of jobs."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nudgescribe.contract import ErrorBody, Text

RERUNS = "/v1/campaign/rerun/"
LINK_REFUSED = "The link has expired or was not issued here."
MAX_NAMES = 10
MAX_NAME_LENGTH = 100


def describe_errors(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses` for these statuses, each with the contract's error body."""
    return {
        status: {"model": ErrorBody, "description": description}
        for status, description in descriptions.items()
    }


COMMON_ERRORS = describe_errors(
    {
        400: "malformed JSON, wrong types, or a state that does not allow the call",
        401: "missing fields, an unknown workspace or export type",
        403: "missing or bad authentication",
        413: "the body is too large",
        415: "the body is compressed",
        500: "an unexpected failure, which the log has under the id in the text",
    }
)
NOT_FOUND = describe_errors(
    {404: "no such campaign, customer group, field or file in this account"}
)


class JobFailed(Exception):
    """The job has failed for good; the text is the reason for users, without customer data."""


def error_response(
    status: int, text: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error in the contract's form; a lone surrogate in the text becomes "?"."""
    message = text.encode(errors="replace").decode()
    return JSONResponse(ErrorBody(message=message).model_dump(), status, headers)


def handle_http_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an HTTPException, ours or the framework's, with its status, text and headers."""
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail, error.headers)


def handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Answer 401 with the endpoint's text if a field is missing, else 400 with wrong fields' names.

    Source: the API pages of Nudgescribe for 401 and 400, and for the two texts of the 401.
    """
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    if any(problem["type"] == "missing" for problem in problems):
        rerun = request.url.path.startswith(RERUNS)
        return error_response(401, Text.MISSING_RERUN if rerun else Text.MISSING)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return error_response(400, "The body is not valid JSON.")
    names = sorted({".".join(map(str, problem["loc"][1:])) or "body" for problem in problems})
    if names == ["body"] and "json" not in request.headers.get("content-type", ""):
        return error_response(400, Text.NOT_JSON)  # it was not read at all
    shown = [name[:MAX_NAME_LENGTH] for name in names[:MAX_NAMES]]
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return error_response(400, f"Wrong type or value: {', '.join(shown)}{more}.")
