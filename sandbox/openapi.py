"""The OpenAPI document, from the contract models and the rules that hold for every call.

`python -m sandbox.openapi` prints it.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from nudgescribe import contract
from nudgescribe.contract import API_KEY_HEADER, AUTH_CONTEXT_HEADER, CLIENT_IP_HEADER

DESCRIPTION = """\
The Nudgescribe client API as the sandbox serves it. Names and fields that Nudgescribe does not
publish are Nudgeflow's reading of the API; they come from `nudgescribe/contract.py`."""
THREE_HEADERS = ("/v1/campaign/", "/v1/messages/")
ERRORS = {
    "400": "malformed JSON, wrong types, or a state that does not allow the call",
    "401": "missing fields, an unknown workspace or export type",
    "403": "missing or bad authentication",
    "404": "no such campaign, customer group, field or file in this account",
    "413": "the body is too large",
    "415": "the body is packed",
    "429": "the quota is used up; Retry-After tells when the next window begins",
    "500": "an export that cannot be parsed",
}
_REF = "#/components/schemas/"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of an app; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)  # refusals have the contract's form here
        for model in (contract.ErrorBody, contract.UploadCustomer):
            schemas[model.__name__] = _schema(model)
        schemas[contract.UploadForm.__name__] = _upload_form()
        document["components"]["responses"] = {
            status: _error(description) for status, description in ERRORS.items()
        }
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(path, operation)
        sign_in = document["paths"][contract.AUTH]["post"]
        sign_in.update(security=[], parameters=[_header(API_KEY_HEADER)])
        document["paths"][contract.CUSTOMERS_CHECK]["post"]["requestBody"] = _upload_body()
        app.openapi_schema = document
    return app.openapi_schema


def _complete(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for status in ERRORS:
        responses[status] = {"$ref": f"#/components/responses/{status}"}
    if path.startswith("/v1/"):
        operation["security"] = [{"bearer": []}]
    if path.startswith(THREE_HEADERS):
        names = (AUTH_CONTEXT_HEADER, CLIENT_IP_HEADER)
        operation["parameters"] = [_header(name) for name in names]


def _error(description: str) -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": f"{_REF}{contract.ErrorBody.__name__}"}}}
    return {"description": description, "content": body}


def _header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}


def _upload_form() -> dict[str, Any]:
    form = _schema(contract.UploadForm)
    form["properties"][contract.UPLOAD_FILE] = {"type": "string", "format": "binary"}
    form["required"].append(contract.UPLOAD_FILE)
    return form


def _upload_body() -> dict[str, Any]:
    form = {"$ref": f"{_REF}{contract.UploadForm.__name__}"}
    one = {"$ref": f"{_REF}{contract.UploadCustomer.__name__}"}
    return {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": one}},
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template=f"{_REF}{{model}}")


if __name__ == "__main__":
    from sandbox.service import create_app  # which imports this module
    from sandbox.settings import Settings

    with TemporaryDirectory() as folder:
        app = create_app(Settings(data=Path(folder)))
        sys.stdout.write(json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n")
        app.state.context.store.close()
