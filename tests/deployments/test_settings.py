"""Settings that `bootstrap` reads from variables."""

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


def read_block(setting: str, **fields: str) -> Any:
    variables = {f"NUDGEFLOW_{setting}_{name}".upper(): value for name, value in fields.items()}
    return getattr(settings.read(variables), setting)


def test_block_is_built_from_variables_of_its_fields() -> None:
    chosen = settings.read({**ACCOUNT, "NUDGEFLOW_ACCOUNT_ANSWER_SECONDS": "30"})
    account = chosen.account
    assert isinstance(account, NudgescribeAccount)
    assert account.api_key.get_secret_value() == "key-of-the-account"
    assert account.answer_seconds == 30
    assert account.profile_key is None
    assert (account.calls_limit, account.downloads_limit) == (
        "nudgescribe-calls",
        "nudgescribe-downloads",
    )
    assert chosen.model_copy(update={"account": None}) == settings.Settings()


@pytest.mark.parametrize(
    ("setting", "fields", "block"),
    [
        ("sql_crm", {"url": "sqlite:////data/crm.db", "query": "SELECT 1"}, SqlCrm),
        ("file_crm", {"path": "/data/list.csv", "header": '["id", "plan"]'}, FileCrm),
        ("hubspot_crm", {"token": "t", "list_id": "7", "properties": '["email"]'}, HubSpotCrm),
        (
            "salesforce_crm",
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
def test_crm_of_each_type_is_built(setting: str, fields: dict[str, str], block: type) -> None:
    assert type(read_block(setting, **fields)) is block


def test_lake_takes_storage_options_as_json() -> None:
    options = {"key": "id", "secret": "s", "client_kwargs": {"endpoint_url": "http://s3:9000"}}
    lake = read_block(
        "lake", root="s3://lake/crm", storage_options=json.dumps(options), encryption="AES256"
    )
    assert isinstance(lake, DataLake)
    sealed = {"s3_additional_kwargs": {"ServerSideEncryption": "AES256"}}
    assert lake.options == {**options, **sealed}


def test_value_is_read_from_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(" p w \n")
    given = {**ACCOUNT, "NUDGEFLOW_ACCOUNT_PASSWORD_FILE": str(secret)}
    with pytest.raises(SettingsWrong, match="NUDGEFLOW_ACCOUNT_PASSWORD is given twice"):
        settings.read(given)
    given["NUDGEFLOW_ACCOUNT_PASSWORD"] = ""
    account = settings.read(given).account
    assert isinstance(account, NudgescribeAccount)
    assert account.password.get_secret_value() == " p w "
    secret.unlink()
    with pytest.raises(
        SettingsWrong, match=r"ACCOUNT_PASSWORD_FILE names no file to read: FileNotFoundError\."
    ):
        settings.read(given)


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUDGEFLOW_LAKE_ROOT", "of the process, not of what is read")
    names = ("CAMPAIGN_ID", "WORKSPACE_ID", "HOME", "SANDBOX_CHAT_KEY")
    variables = {f"NUDGEFLOW_{name}": "x" for name in names} | {"PATH": "/"}
    assert settings.read(variables) == settings.Settings()
    assert settings.Settings().lake is None


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"ACCOUNT_EMAIL": "a@example.com", "ACCOUNT_API_KEY": "k"},
            ["NUDGEFLOW_ACCOUNT_PASSWORD is missing", "NUDGEFLOW_ACCOUNT_API_CODE is missing"],
        ),
        (
            {name.removeprefix("NUDGEFLOW_"): value for name, value in ACCOUNT.items()}
            | {"ACCOUNT_BASE_URL": "http://hunter2.example"},
            ["NUDGEFLOW_ACCOUNT_ALLOW_HTTP is wrong: base_url must begin with https://"],
        ),
        ({"LAKE_FORMAT": "csv"}, ["NUDGEFLOW_LAKE_ROOT is missing"]),
        (
            {"ACCOUNT_PASSWROD": "hunter2"},
            ["NUDGEFLOW_ACCOUNT_PASSWROD is unknown: is it NUDGEFLOW_ACCOUNT_PASSWORD?"],
        ),
        ({"QQQ": "hunter2"}, ["NUDGEFLOW_QQQ is unknown. "]),
        ({"LAKE_ROOT": "/x", "LAKE_FORMAT": "hunter2"}, ["LAKE_FORMAT is wrong: Input should be"]),
        (
            {"LAKE_ROOT": "/x", "LAKE_STORAGE_OPTIONS": "hunter2"},
            ["LAKE_STORAGE_OPTIONS is wrong: Input should be a valid dictionary, as JSON."],
        ),
        (
            {"LAKE_ROOT": "/x", "LAKE_STORAGE_OPTIONS": '["hunter2"]'},
            ["LAKE_STORAGE_OPTIONS is wrong: Input should be a valid dictionary."],
        ),
        (
            {"FILE_CRM_PATH": "x", "FILE_CRM_HEADER": "hunter2", "CALLS": "hunter2"},
            ["FILE_CRM_HEADER is wrong: Input should be a valid list, as JSON.", "CALLS is wrong"],
        ),
        (
            {"SQL_CRM_URL": "x", "SQL_CRM_QUERY": "x", "SQL_CRM_PARAMETERS": '{"hunter2": []}'},
            ["NUDGEFLOW_SQL_CRM_PARAMETERS is wrong: Input should be a valid string"],
        ),
        ({"POOL_TYPE": "hunter2"}, ["NUDGEFLOW_POOL_TYPE is wrong: Input should be 'process' or"]),
        ({"CALLS": "0"}, ["NUDGEFLOW_CALLS is wrong: Input should be greater than or equal to 1"]),
        (
            {"NOTIFY_URL": "https://example.com/hunter2"},
            ["NUDGEFLOW_NOTIFY_URL is wrong: no address that Apprise knows"],
        ),
        ({"NOTIFY_URL": "hunter2"}, ["NUDGEFLOW_NOTIFY_URL is wrong: "]),
    ],
)
def test_wrong_variables_are_named_without_their_values(
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
