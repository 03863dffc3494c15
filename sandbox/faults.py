"""Refusals, in the words of the contract."""

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from nudgescribe.contract import Text

RERUNS = "/v1/campaign/rerun/"


class Refusal(Exception):
    """An answer with an error status and the contract's text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def refuse(request: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, Refusal)
    return JSONResponse({"message": refusal.text}, refusal.status)


def refuse_body(request: Request, error: Exception) -> JSONResponse:
    """Missing fields are a 401 with the endpoint's text, anything else wrong is a 400."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    if any(problem["type"] == "missing" for problem in problems):
        rerun = request.url.path.startswith(RERUNS)
        return JSONResponse({"message": Text.MISSING_RERUN if rerun else Text.MISSING}, 401)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return JSONResponse({"message": "The body is not valid JSON."}, 400)
    names = sorted({".".join(map(str, problem["loc"][1:])) or "body" for problem in problems})
    return JSONResponse({"message": f"Wrong type or value: {', '.join(names)}."}, 400)
