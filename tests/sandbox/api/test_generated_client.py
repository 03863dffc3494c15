"""A client that a stranger generates from the OpenAPI document runs a refresh, unchanged."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from io import BytesIO
from math import ceil
from types import ModuleType
from typing import Any

import pytest

from nudgescribe import rfc4180
from tests.conftest import Company, customers
from tests.sandbox.api.test_schema import FILE
from tests.support.clock import until

PACKAGE = "strangers_client"
MESSAGES = "campaigns_and_messages"
IP = "203.0.113.7"
CUSTOMERS = 250
"""More than two files of an export hold."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The generated package; the generator had nothing to warn of."""
    folder = tmp_path_factory.mktemp("generated")
    options = folder / "options.yaml"
    options.write_text("post_hooks: []")  # ruff by default, which need not be on the path
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(FILE)]
    command += ["--output-path", str(folder / PACKAGE), "--meta", "none", "--fail-on-warning"]
    subprocess.run([*command, "--config", str(options)], check=True, timeout=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield import_module(PACKAGE)


def ask(client: object, operation: str, answer: str, *path: str, **arguments: Any) -> Any:
    """Make a call with a function of the package; return its answer, which is of this model."""
    call = import_module(f"{PACKAGE}.api.{operation}").sync
    result = call(*path, client=client, **arguments)
    assert type(result).__name__ == answer, result
    return result


@pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
def test_generated_client_runs_a_refresh(company: Company, package: ModuleType) -> None:
    models, types = import_module(f"{PACKAGE}.models"), import_module(f"{PACKAGE}.types")
    one, url, rows = company.seeded, company.sandbox.url, customers(CUSTOMERS)
    who = models.SignIn(email=one.email, password=one.password)
    with package.Client(url, headers={"x-api-key": one.api_key}) as visitor:
        tokens = ask(visitor, "authentication.sign_in", "Tokens", body=who)

    context = json.dumps({"api_access": True, "api_code": one.api_code})
    headers = {"x-auth-context": context}
    with package.AuthenticatedClient(url, tokens.access_token, headers=headers) as client:
        new = models.CreateGroup(workspace_id=one.workspace_id, name="Refreshed")
        group = ask(client, "customer_groups.create_customer_group", "CustomerGroup", body=new)
        upload = models.CheckCustomersFilesUploadForm(
            workspace_id=one.workspace_id,
            customer_group_id=group.customer_group_id,
            file=types.File(BytesIO(rfc4180.write(rows)), "customers.csv", "text/csv"),
        )
        # Its generator leaves out an import for a body of several types (its issue 1451), unless a
        # parameter of the call is optional, as the address is here.
        uploaded = ask(client, "customers.check_customers", "UploadResult", body=upload)
        assert (uploaded.accepted, uploaded.rejected) == (CUSTOMERS, 0)

        def ask_campaign(
            operation: str, answer: str, body: Callable[..., Any] = models.CampaignRequest
        ) -> Any:
            of_run = body(campaign_id=one.campaign_id)
            return ask(client, operation, answer, body=of_run, x_ip=IP)

        rerun = partial(models.InitiateRerun, new_customer_group_id=group.customer_group_id)
        started = ask_campaign("reruns.initiate_campaign_rerun", "RerunStarted", rerun)
        assert started.run.run_number == 2
        history = partial(ask_campaign, "reruns.list_campaign_runs", "RunHistory")
        until(lambda: history().runs[0].status == "Ready for review")
        ask(client, "sandbox.approve_campaign", "Approved", one.campaign_id)
        assert [run.status for run in history().runs] == ["Ready to publish", "Published"]

        ask_campaign(f"{MESSAGES}.publish_messages", "Job")
        count = partial(ask_campaign, f"{MESSAGES}.count_message_pages", "PageCount")
        files = ceil(CUSTOMERS / company.sandbox.settings.rows_per_file)
        until(lambda: count(models.RunRequest).num_files == files)
        as_json = partial(models.FetchRequest, export_type=models.FetchRequestExportType.JSON)
        pages = [
            ask_campaign(
                f"{MESSAGES}.fetch_messages", "JsonPage", partial(as_json, file_num=number)
            )
            for number in range(files)
        ]
    messages = {row.customer_id: row.message for page in pages for row in page.messages}
    assert {*messages} == {*rows["customer_id"]}
    assert all(messages.values())
