"""The OpenAPI document: it is valid and complete, and the service answers as it says."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from requests import Session
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from nudgescribe import contract, rfc4180
from nudgescribe.contract import Status
from sandbox import seed
from sandbox.data.models import Campaign
from tests.conftest import Company, Sandbox, customers

FILE = Path(__file__).parents[3] / "docs" / "openapi.json"
DOCUMENT = json.loads(FILE.read_text())
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
METHODS = {
    contract.AUTH: {"get", "post"},
    contract.FIELDS: {"put", "post", "patch", "delete"},
    contract.GROUPS: {"put", "post", "patch", "delete"},
    contract.CUSTOMERS: {"post", "delete"},
}
"""Of the paths that take more than POST."""

described = schemathesis.openapi.from_dict(DOCUMENT, config=SchemathesisConfig(seed=7))


class Caller:
    """A company's headers, and values of its own in the place of made-up ones."""

    def __init__(self, company: Company, session: Session) -> None:
        self.company = company
        self._session = session
        self.statuses: set[int] = set()
        one = company.seeded
        who = {"email": one.email, "password": one.password}
        self._key = {contract.API_KEY_HEADER: one.api_key}
        tokens = httpx.post(company.sandbox.url + contract.AUTH, json=who, headers=self._key).json()
        self._access, self._refresh = tokens["access_token"], tokens["refresh_token"]
        self._context = {"api_access": True, "api_code": one.api_code}
        with company.client() as client:
            last_field = client.list_fields(one.workspace_id)[-1].field_id
            later = client.create_group(one.workspace_id, "Later").customer_group_id
            client.upload_customers(one.workspace_id, later, rfc4180.write(customers(60)))
        self.own: Mapping[str, Any] = {
            **who,
            "workspace_id": one.workspace_id,
            "customer_group_id": one.customer_group_id,
            "new_customer_group_id": later,
            "campaign_id": one.campaign_id,
            "account_id": one.account_id,
            "field_id": last_field,
            "field_type": "string",
            "field_format": None,
            "unique": False,
            "file_num": 0,
            "export_type": "json",
            "customer": customers(1).row(0, named=True),
            "file": rfc4180.write(customers(3)),
        }

    def headers(self, path: str, method: str) -> dict[str, str]:
        bearer = self._refresh if (path, method) == (contract.AUTH, "get") else self._access
        return {
            **self._key,
            "authorization": f"Bearer {bearer}",
            contract.AUTH_CONTEXT_HEADER: json.dumps(self._context),
            contract.CLIENT_IP_HEADER: "192.0.2.1",
        }

    def send(self, case: schemathesis.Case) -> None:
        headers = self.headers(case.operation.path, case.operation.method)
        url = self.company.sandbox.url
        answer = case.call(base_url=url, session=self._session, headers=headers)
        self.statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    def replace(self, values: object) -> bool:
        """Puts own values under the names that have one; whether there were any."""
        if not isinstance(values, dict):
            return False
        names = [name for name in values if name in self.own]
        values.update({name: self.own[name] for name in names})
        return bool(names)


@pytest.fixture
def caller(sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Each operation has a company of its own, and must have been of service to it."""
    company = Company(sandbox, seed.seed(sandbox.context, 60))
    if "approve" in request.node.name:
        with sandbox.context.store.write() as session:
            campaign = session.get_one(Campaign, company.seeded.campaign_id)
            campaign.status = Status.READY_FOR_REVIEW
    with Session() as session:
        one = Caller(company, session)
        yield one
    httpx.delete(f"{sandbox.url}/sandbox/faults").raise_for_status()
    assert 200 in one.statuses


@described.parametrize()
@settings(
    max_examples=20,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_answer_is_as_described(case: schemathesis.Case, caller: Caller) -> None:
    caller.send(case)
    in_path, in_body = caller.replace(case.path_parameters), caller.replace(case.body)
    if in_path or in_body:
        caller.send(case)


@pytest.fixture
def served(sandbox: Sandbox) -> dict[str, Any]:
    return httpx.get(f"{sandbox.url}/openapi.json").json()


def test_the_served_document_is_the_published_one(served: dict[str, Any]) -> None:
    """After a change: `python -m sandbox.openapi > docs/openapi.json`."""
    assert served == DOCUMENT


def test_the_published_document_is_printed_just_so() -> None:
    command = [sys.executable, "-m", "sandbox.openapi"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    assert printed.decode() == FILE.read_text()


def test_the_document_is_valid_openapi(served: dict[str, Any]) -> None:
    assert served["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(served).validate()
    for schema in served["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for target in references(served):
        found: Any = served
        for name in target.removeprefix("#/").split("/"):
            found = found[name]


def test_every_path_and_method_of_the_contract_is_described(served: dict[str, Any]) -> None:
    paths = {
        value
        for value in vars(contract).values()
        if isinstance(value, str) and value.startswith("/v1/")
    }
    described = {path: {*methods} for path, methods in served["paths"].items()}
    assert {path: described[path] for path in described if path.startswith("/v1/")} == {
        path: METHODS.get(path, {"post"}) for path in paths
    }


def requests(model: type[contract.Request] = contract.Request) -> Iterator[type[contract.Request]]:
    """All bodies of requests; the context of a caller is a header."""
    for each in model.__subclasses__():
        yield from requests(each)
        if each is not contract.AuthContext:
            yield each


@pytest.mark.parametrize("model", [*requests()], ids=lambda model: model.__name__)
def test_every_field_of_a_request_is_described(
    model: type[contract.Request], served: dict[str, Any]
) -> None:
    assert f"#/components/schemas/{model.__name__}" in {*references(served)}
    described = served["components"]["schemas"][model.__name__]
    file = {contract.UPLOAD_FILE} if model is contract.UploadForm else set()
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    needed = {name for name, field in fields.items() if field.is_required()}
    assert {*described["properties"]} == {*fields} | file
    assert {*described.get("required", [])} == needed | file
    assert described["additionalProperties"] is False


def references(part: object) -> Iterator[str]:
    """What a document refers to."""
    if isinstance(part, dict):
        if isinstance(target := part.get("$ref"), str):
            yield target
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)
