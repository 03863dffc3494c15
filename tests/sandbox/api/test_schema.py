"""The OpenAPI document: it is valid and complete, and the service answers as it says."""

import json
import re
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
from sandbox.__main__ import main
from sandbox.data.models import Campaign
from tests.conformance.wire import Access, Account, signed_in
from tests.conftest import Company, Sandbox, customers

FILE = Path(__file__).parents[3] / "docs" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
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
THREE_HEADERS = ("/v1/campaign/", "/v1/messages/")

described = schemathesis.openapi.from_dict(DOCUMENT, config=SchemathesisConfig(seed=7))


class Caller:
    """Sends cases with the headers of an account, and with its own values for made-up ones."""

    def __init__(self, account: Account, own: Mapping[str, Any], session: Session) -> None:
        self._account = account
        self._own = own
        self._session = session
        self.statuses: set[int] = set()

    def send(self, case: schemathesis.Case) -> None:
        """Make the call of a case and check that its answer is as the document says."""
        headers = dict(self._account.headers)
        if (case.operation.path, case.operation.method) == (contract.AUTH, "get"):
            headers["authorization"] = f"Bearer {self._account.tokens['refresh_token']}"
        url = self._account.access.base_url
        # Of uploads the content type tells whether they are a form.
        del headers["content-type"]
        answer = case.call(base_url=url, session=self._session, headers=headers)
        self.statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    def replace(self, values: object) -> bool:
        """Replace values by own ones of the same names; return whether there were any."""
        if not isinstance(values, dict):
            return False
        names = [name for name in values if name in self._own]
        values.update({name: self._own[name] for name in names})
        return bool(names)


def own_values(company: Company, account: Account) -> dict[str, Any]:
    """Return values for names in requests that have a meaning in the company's account."""
    one = company.seeded
    with company.client() as client:
        last_field = client.list_fields(one.workspace_id)[-1].field_id
        later = client.create_group(one.workspace_id, "Later").customer_group_id
        client.upload_customers(one.workspace_id, later, rfc4180.write(customers(60)))
    return {
        **account.ids,
        "email": one.email,
        "password": one.password,
        "new_customer_group_id": later,
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


@pytest.fixture
def caller(sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Caller]:
    """A caller with a company of its own for each operation, which must succeed at least once."""
    company = Company(sandbox, seed.seed(sandbox.context, 60))
    if "approve" in request.node.name:
        with sandbox.context.store.write() as session:
            campaign = session.get_one(Campaign, company.seeded.campaign_id)
            campaign.status = Status.READY_FOR_REVIEW
    with Session() as session, signed_in(Access.of(company)) as account:
        caller = Caller(account, own_values(company, account), session)
        yield caller
    httpx.delete(f"{sandbox.url}/sandbox/faults").raise_for_status()
    assert 200 in caller.statuses


@pytest.mark.parametrize("database", ["postgresql"], indirect=True, scope="session")
@described.parametrize()
@settings(
    max_examples=20,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_answer_is_as_described(case: schemathesis.Case, caller: Caller) -> None:
    caller.send(case)
    in_path, in_body = caller.replace(case.path_parameters), caller.replace(case.body)
    if in_path or in_body:
        caller.send(case)


def test_served_and_printed_document_is_the_published_one(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a change: `python -m sandbox openapi > docs/openapi.json`."""
    assert httpx.get(f"{sandbox.url}/openapi.json").json() == DOCUMENT
    main(["openapi"])
    assert capsys.readouterr().out == FILE.read_text()


def test_document_is_valid_openapi() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for target in references(DOCUMENT):
        found: Any = DOCUMENT
        for name in target.removeprefix("#/").split("/"):
            found = found[name]


def test_document_has_every_path_and_method_of_the_contract() -> None:
    paths = {
        value
        for value in vars(contract).values()
        if isinstance(value, str) and value.startswith("/v1/")
    }
    described = {path: {*methods} for path, methods in DOCUMENT["paths"].items()}
    assert {path: described[path] for path in described if path.startswith("/v1/")} == {
        path: METHODS.get(path, {"post"}) for path in paths
    }


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each operation with its path."""
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_document_says_what_authenticates_each_operation() -> None:
    for path, operation in operations():
        required = {each["name"] for each in operation.get("parameters", []) if each["required"]}
        assert ("x-ip" in required) == path.startswith(THREE_HEADERS), path
        security = [{*each} for each in operation.get("security", [])]
        assert security == schemes_of(path, operation["operationId"]), path


def schemes_of(path: str, operation_id: str) -> list[set[str]]:
    """Return the alternatives that authenticate an operation; the API key may be missing."""
    if not path.startswith("/v1/"):
        return []
    if operation_id == "signIn":
        return [{"apiKey"}]
    needed = {"bearer", "authContext"} if path.startswith(THREE_HEADERS) else {"bearer"}
    return [needed, {*needed, "apiKey"}]


def test_document_is_complete_for_strangers_tools() -> None:
    """What `spectral:oas` warns about, as far as this document can lack it."""
    assert DOCUMENT["servers"]
    assert DOCUMENT["info"]["contact"]
    tags = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
    described = [operation for _, operation in operations()]
    assert {tag for operation in described for tag in operation["tags"]} == tags
    ids = [operation["operationId"] for operation in described]
    assert len({*ids}) == len(ids)
    for operation in described:
        assert re.fullmatch("[a-z]+([A-Z][a-z]+)+", operation["operationId"])
        assert operation["summary"]
        assert operation["description"]
        assert len(operation["tags"]) == 1
        assert operation.get("requestBody", {"required": True})["required"]
        assert "422" not in operation["responses"], operation["operationId"]


def requests(model: type[contract.Request] = contract.Request) -> Iterator[type[contract.Request]]:
    """Yield all models of request bodies."""
    for each in model.__subclasses__():
        yield from requests(each)
        yield each


def body_schemas() -> dict[str, Any]:
    """Return the schemas of all request bodies by their titles."""
    schemas: dict[str, Any] = {}
    for _, operation in operations():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            schema = DOCUMENT["components"]["schemas"][name] if name else content["schema"]
            schemas[schema["title"]] = schema
    return schemas


@pytest.mark.parametrize("model", [*requests()], ids=lambda model: model.__name__)
def test_document_has_every_field_of_a_request(model: type[contract.Request]) -> None:
    described = body_schemas()[model.__name__]
    file = {contract.UPLOAD_FILE} if model is contract.UploadForm else set()
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    required = {name for name, field in fields.items() if field.is_required()}
    assert {*described["properties"]} == {*fields} | file
    assert {*described.get("required", [])} == required | file
    assert described["additionalProperties"] is False


@pytest.mark.parametrize("model", [*requests()], ids=lambda model: model.__name__)
def test_document_has_an_example_of_a_request(model: type[contract.Request]) -> None:
    properties = body_schemas()[model.__name__]["properties"]
    examples = {
        name: each["examples"][0] for name, each in properties.items() if "examples" in each
    }
    model.model_validate_json(json.dumps(examples))


def references(value: object) -> Iterator[str]:
    """Yield the targets of all references in a document."""
    if isinstance(value, dict):
        if isinstance(target := value.get("$ref"), str):
            yield target
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
