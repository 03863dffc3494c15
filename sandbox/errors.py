"""Refusals of calls, in the words of the contract, and failures of jobs."""

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nudgescribe.contract import ErrorBody, Text

RERUNS = "/v1/campaign/rerun/"
NAMES_TOLD = 10
LONGEST_NAME = 100


class Refusal(Exception):
    """An answer with an error status and the contract's text; `retry_after` in seconds."""

    def __init__(self, status: int, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after = retry_after


class JobFailed(Exception):
    """Ends a job for good; its text is the reason people read, and holds no customer data."""


def answer(status: int, text: str, *, retry_after: int | None = None) -> JSONResponse:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    said = text.encode(errors="replace").decode()  # it may name what was sent
    return JSONResponse(ErrorBody(message=said).model_dump(), status, headers)


def refuse(request: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, Refusal)
    return answer(refusal.status, refusal.text, retry_after=refusal.retry_after)


def refuse_call(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: a path or a method there is not, a form it cannot read."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"message": error.detail}, error.status_code, error.headers)


def refuse_body(request: Request, error: Exception) -> JSONResponse:
    """Missing fields are a 401 with the endpoint's text, anything else wrong is a 400."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    if any(problem["type"] == "missing" for problem in problems):
        rerun = request.url.path.startswith(RERUNS)
        return answer(401, Text.MISSING_RERUN if rerun else Text.MISSING)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return answer(400, "The body is not valid JSON.")
    names = sorted({".".join(map(str, problem["loc"][1:])) or "body" for problem in problems})
    told = [name[:LONGEST_NAME] for name in names[:NAMES_TOLD]]
    more = f" and {len(names) - NAMES_TOLD:,} more" if len(names) > NAMES_TOLD else ""
    return answer(400, f"Wrong type or value: {', '.join(told)}{more}.")
