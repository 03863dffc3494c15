"""The variables a server is set up from."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from blocks import DataLake, FileCrm, HubSpotCrm, NudgescribeAccount, SalesforceCrm, SqlCrm
from deployments import settings
from deployments.settings import SettingsWrong

# A plugin of Apprise imports it, for as long as Python has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ACCOUNT = {
    "NUDGEFLOW_ACCOUNT_EMAIL": "refresh@example.com",
    "NUDGEFLOW_ACCOUNT_PASSWORD": "hunter2",
    "NUDGEFLOW_ACCOUNT_API_KEY": "key-of-the-account",
    "NUDGEFLOW_ACCOUNT_API_CODE": "code-of-the-account",
}


def made(place: str, **variables: str) -> Any:
    given = {f"NUDGEFLOW_{place}_{name.upper()}": value for name, value in variables.items()}
    return settings.read(given)[1][place]


def test_a_block_is_made_of_its_fields_variables() -> None:
    chosen, blocks = settings.read({**ACCOUNT, "NUDGEFLOW_ACCOUNT_ANSWER_SECONDS": "30"})
    account = blocks.pop("ACCOUNT")
    assert isinstance(account, NudgescribeAccount)
    assert account.api_key.get_secret_value() == "key-of-the-account"
    assert account.answer_seconds == 30
    assert account.profile_key is None
    assert (account.calls_limit, account.downloads_limit) == (
        "nudgescribe-calls",
        "nudgescribe-downloads",
    )
    assert set(blocks.values()) == {None}
    assert chosen == settings.Settings()


@pytest.mark.parametrize(
    ("place", "variables", "block"),
    [
        ("SQL_CRM", {"url": "sqlite:///crm.db", "query": "SELECT 1"}, SqlCrm),
        ("FILE_CRM", {"path": "list.csv", "header": '["id", "plan"]'}, FileCrm),
        ("HUBSPOT_CRM", {"token": "t", "list_id": "7", "properties": '["email"]'}, HubSpotCrm),
        (
            "SALESFORCE_CRM",
            {
                "login_url": "https://us.my.salesforce.com",
                "client_id": "i",
                "client_secret": "s",
                "query": "SELECT Id FROM Contact",
            },
            SalesforceCrm,
        ),
    ],
)
def test_a_crm_of_any_type(place: str, variables: dict[str, str], block: type) -> None:
    assert type(made(place, **variables)) is block


def test_a_lake_on_s3() -> None:
    options = {"key": "id", "secret": "s", "client_kwargs": {"endpoint_url": "http://s3:9000"}}
    lake = made(
        "LAKE", root="s3://lake/crm", storage_options=json.dumps(options), encryption="AES256"
    )
    assert isinstance(lake, DataLake)
    sealed = {"s3_additional_kwargs": {"ServerSideEncryption": "AES256"}}
    assert lake.options == {**options, **sealed}


def test_a_value_is_read_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(" p w \n")
    given = {**ACCOUNT, "NUDGEFLOW_ACCOUNT_PASSWORD_FILE": str(secret)}
    with pytest.raises(SettingsWrong, match="NUDGEFLOW_ACCOUNT_PASSWORD is given twice"):
        settings.read(given)
    given["NUDGEFLOW_ACCOUNT_PASSWORD"] = ""
    account = settings.read(given)[1]["ACCOUNT"]
    assert isinstance(account, NudgescribeAccount)
    assert account.password.get_secret_value() == " p w "
    secret.unlink()
    with pytest.raises(
        SettingsWrong, match=r"ACCOUNT_PASSWORD_FILE names no file to read: FileNotFoundError\."
    ):
        settings.read(given)


def test_the_variables_of_others_are_known() -> None:
    names = ("CAMPAIGN_ID", "WORKSPACE_ID", "HOME", "SANDBOX_CHAT_KEY")
    chosen, blocks = settings.read({f"NUDGEFLOW_{name}": "x" for name in names} | {"PATH": "/"})
    assert chosen == settings.Settings()
    assert set(blocks.values()) == {None}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"ACCOUNT_EMAIL": "a@example.com", "ACCOUNT_API_KEY": "k"},
            ["NUDGEFLOW_ACCOUNT_PASSWORD is missing", "NUDGEFLOW_ACCOUNT_API_CODE is missing"],
        ),
        ({"LAKE_FORMAT": "csv"}, ["NUDGEFLOW_LAKE_ROOT is missing"]),
        (
            {"ACCOUNT_PASSWROD": "hunter2"},
            ["NUDGEFLOW_ACCOUNT_PASSWROD is unknown: is it NUDGEFLOW_ACCOUNT_PASSWORD?"],
        ),
        ({"QQQ": "hunter2"}, ["NUDGEFLOW_QQQ is unknown. "]),
        ({"LAKE_ROOT": "x", "LAKE_FORMAT": "hunter2"}, ["LAKE_FORMAT is wrong: Input should be"]),
        (
            {"LAKE_ROOT": "x", "LAKE_STORAGE_OPTIONS": "hunter2"},
            ["NUDGEFLOW_LAKE_STORAGE_OPTIONS is no JSON"],
        ),
        (
            {"LAKE_ROOT": "x", "LAKE_STORAGE_OPTIONS": '["hunter2"]'},
            ["NUDGEFLOW_LAKE_STORAGE_OPTIONS is wrong: Input should be a valid dictionary"],
        ),
        (
            {"SQL_CRM_URL": "x", "SQL_CRM_QUERY": "x", "SQL_CRM_PARAMETERS": '{"hunter2": []}'},
            ["NUDGEFLOW_SQL_CRM_PARAMETERS is wrong: Input should be a valid string"],
        ),
        ({"POOL_TYPE": "hunter2"}, ["NUDGEFLOW_POOL_TYPE is wrong: Input should be 'process' or"]),
        ({"CALLS": "0"}, ["NUDGEFLOW_CALLS is wrong: Input should be greater than or equal to 1"]),
        (
            {"NOTIFY_URL": "https://example.com/hunter2"},
            ["NUDGEFLOW_NOTIFY_URL is wrong: Value error, is no address that Apprise knows"],
        ),
        ({"NOTIFY_URL": "hunter2"}, ["NUDGEFLOW_NOTIFY_URL is wrong: "]),
    ],
)
def test_what_is_wrong_is_named_without_its_value(
    variables: dict[str, str],
    said: list[str],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SettingsWrong) as raised:
        settings.read({f"NUDGEFLOW_{name}": value for name, value in variables.items()})
    for text in said:
        assert text in str(raised.value)
    told = f"{raised.value}{caplog.text}{''.join(capsys.readouterr())}"
    assert "hunter2" not in told
    assert raised.value.__cause__ is raised.value.__context__ is None
