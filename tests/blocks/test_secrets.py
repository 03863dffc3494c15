"""Secrets that blocks refer to: found when a client is made, anew each time, and never shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest
from prefect import flow, task
from prefect.blocks.system import Secret
from pydantic import SecretStr

from blocks import (
    CrmSource,
    DataLake,
    FileCrm,
    HubSpotCrm,
    NudgescribeAccount,
    SalesforceCrm,
    SqlCrm,
)
from blocks.crm.errors import SourceError
from blocks.saved import SavedBlock
from blocks.secrets import SecretUnusable, read_secret
from nudgescribe.errors import AuthError
from tests.conftest import Company, Save, Saved, customers

NAMES = ("password", "api_key", "api_code", "profile_key")
FOUND = "s3cret\u00e9 with: a colon"
Put = Callable[[str], str]
"""Puts a secret somewhere, and returns the reference to it."""


@pytest.fixture(params=["env", "file", "prefect", "literal"])
def put(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Each kind of place, always the same one."""

    def in_environment(secret: str) -> str:
        monkeypatch.setenv("A_SECRET", secret)
        return "env:A_SECRET"

    def in_file(secret: str) -> str:
        (tmp_path / "a secret").write_text(f"{secret}\n", encoding="utf-8")
        return f"file:{tmp_path / 'a secret'}"

    def in_prefect(secret: str) -> str:
        request.getfixturevalue("prefect_server")
        Secret(value=secret).save("a-secret", overwrite=True)
        return "prefect:a-secret"

    places = {"env": in_environment, "file": in_file, "prefect": in_prefect}
    return places.get(request.param, "literal:{}".format)


@pytest.mark.parametrize("secret", [FOUND, "0123", "123", "true", '{"a": 1}', "env:LITERAL", " a "])
def test_secret_is_read_from_where_it_is(put: Put, secret: str) -> None:
    assert read_secret(SecretStr(put(secret)), "password") == secret


@pytest.mark.parametrize(
    "secret", ["", "plain", "environment", "https://a/b", "ENV:A", " env:A", "file:///a/list.zip"]
)
def test_what_is_no_reference_is_the_secret_itself(secret: str) -> None:
    assert read_secret(SecretStr(secret), "password") == secret


def test_file_of_a_secret_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{FOUND}\r\n", encoding="utf-8-sig")
    assert read_secret(f"file:{tmp_path / 'secret'}", "password") == FOUND


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("env:NOT_THERE", "there is no environment variable NOT_THERE."),
        ("env:EMPTY", "env:EMPTY is empty."),
        ("file:/not/there", "the file /not/there cannot be read: FileNotFoundError."),
        (
            "prefect:s3cret",
            "no Secret block of the name behind prefect:. Saved are: secret/",
        ),
        ("prefect:a-number", "the Secret block a-number holds no text."),
        ("literal:", "literal: is empty."),
        (
            "env:s3cret-word",
            "what begins with env: must be env: and a variable's name in capitals.",
        ),
        ("env:s3cret", "env: and a variable's name in capitals."),
        ("env:S3CRÉT", "env: and a variable's name in capitals."),
        ("file:s3cret", "what begins with file: must be file: and an absolute path."),
        ("prefect:data-lake/s3cret", "must be prefect: and the name of a Secret block."),
        ("file:/s3cret\ns3cret", "must be file: and an absolute path."),
    ],
)
def test_error_names_what_is_missing(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, reference: str, problem: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    Secret(value=7).save("a-number", overwrite=True)
    with pytest.raises(SecretUnusable) as caught:
        read_secret(SecretStr(reference), "account/main, password")
    assert caught.value.problem.startswith("account/main, password: ")
    assert problem in caught.value.problem
    assert "s3cret" not in str(caught.value)
    assert "literal:" in caught.value.advice
    assert caught.value.__cause__ is None


# ---- the account --------------------------------------------------------------------------------


def referring(company: Company, monkeypatch: pytest.MonkeyPatch) -> NudgescribeAccount:
    """An account all of whose secrets are variables of the same name."""
    for name in NAMES:
        monkeypatch.setenv(name.upper(), getattr(company.seeded, name))
    return company.account(**{name: f"env:{name.upper()}" for name in NAMES})


def test_account_works_with_references_alone(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = referring(company, monkeypatch)
    ids = company.seeded
    with account.get_client() as client:
        assert next(client.customers(ids.workspace_id, ids.customer_group_id)).profile


def test_rotated_password_counts_from_the_next_client_on(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = referring(company, monkeypatch)
    monkeypatch.setenv("PASSWORD", "the old one")
    with account.get_client() as client, pytest.raises(AuthError):
        client.campaigns()
    monkeypatch.setenv("PASSWORD", company.seeded.password)
    with account.get_client() as client:
        assert client.campaigns()


@pytest.mark.parametrize("name", ["api_key", "api_code"])
def test_referred_secret_that_fits_in_no_header_is_refused(
    company: Company, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    account = referring(company, monkeypatch)
    monkeypatch.setenv(name.upper(), "s3cret\ntoo")
    with pytest.raises(SecretUnusable, match=f"not-saved, {name}: .*no header has") as caught:
        account.get_client()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["api_key", "api_code"])
def test_header_may_come_from_a_file_of_any_name(
    company: Company, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "schlüssel"
    file.write_text(getattr(company.seeded, name))
    with company.account(**{name: f"file:{file}"}).get_client() as client:
        assert client.campaigns()


# ---- what is stored and travels -----------------------------------------------------------------


@pytest.fixture
def saved(company: Company, save: Save, monkeypatch: pytest.MonkeyPatch) -> Saved:
    saved = save(company, customers(1))
    saved.save_account(referring(company, monkeypatch))
    return saved


def test_saved_block_is_loaded_with_references_while_nothing_is_there(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PASSWORD")
    loaded = NudgescribeAccount.load(saved.name)
    assert loaded.password.get_secret_value() == "env:PASSWORD"
    with pytest.raises(SecretUnusable, match=f"{saved.name}, password: .* PASSWORD"):
        loaded.get_client()


@task
def sign_in(content: bytes) -> int:
    """What a machine of a cluster does with a block that it was sent."""
    account: NudgescribeAccount = cloudpickle.loads(content).resolve()
    with account.get_client() as client:
        return len(client.campaigns())


@flow
def on_cluster(content: bytes) -> list[object]:
    """A password that is rotated while the flow run goes on."""
    with pytest.MonkeyPatch.context() as rotated:
        rotated.setenv("PASSWORD", "the old one")
        before = sign_in(content, return_state=True)
    return [type(before.result(raise_on_failure=False)), sign_in(content)]


def test_machine_of_a_cluster_reads_the_secret_itself(saved: Saved, company: Company) -> None:
    content = cloudpickle.dumps(saved.account)
    assert company.seeded.password.encode() not in content
    assert on_cluster(content) == [AuthError, 1]


def test_unsaved_lake_travels_without_what_its_references_lead_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", FOUND)
    lake = DataLake.model_validate(
        {"root": str(tmp_path), "storage_options": {"x": ["env:A_SECRET"], "auto_mkdir": False}}
    )
    assert lake.options == {"x": [FOUND], "auto_mkdir": False}
    assert lake.files.is_local
    travelled = cloudpickle.dumps(lake)
    assert FOUND.encode() not in travelled
    assert cloudpickle.loads(travelled).options == lake.options


# ---- lake and lists -----------------------------------------------------------------------------


def test_hash_of_identifiers_has_the_referred_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", FOUND)
    ids = pl.Series(["0007", None])
    shown = [
        DataLake(root=str(tmp_path), identifier_key=SecretStr(key)).show_identifiers(ids).to_list()
        for key in (FOUND, "env:A_SECRET")
    ]
    assert shown[0] == shown[1] != ids.to_list()


def test_lake_names_the_option_whose_secret_is_missing(tmp_path: Path) -> None:
    options = {"client_kwargs": {"secret": "env:NOT_THERE"}}
    lake = DataLake.model_validate({"root": str(tmp_path), "storage_options": options})
    where = "data-lake/not-saved, storage_options.client_kwargs.secret: .* NOT_THERE"
    with pytest.raises(SecretUnusable, match=where):
        assert lake.files


def extracted(crm: CrmSource, target: Path) -> list[tuple[Any, ...]]:
    crm.extract(target)
    return pl.read_parquet(target).rows()


def test_sql_list_has_its_url_from_where_it_is_and_its_values_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_URL", f"sqlite:///{tmp_path / 'crm.db'}")
    crm = SqlCrm(
        url=SecretStr("env:CRM_URL"),
        query="SELECT :segment AS segment, :number AS number",
        parameters={"segment": "env:prod", "number": 8},
    )
    (tmp_path / "crm.db").touch()
    assert extracted(crm, tmp_path / "list.parquet") == [("env:prod", "8")]


@pytest.mark.parametrize("url", ["sqlite:///s3cret.db", "s3cret"])
def test_sql_list_refuses_a_referred_url_as_it_does_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CRM_URL", url)
    crm = SqlCrm(url=SecretStr("env:CRM_URL"), query="SELECT 1")
    with pytest.raises(SourceError, match="The URL (must name the file|is not)") as caught:
        crm.extract(tmp_path / "list.parquet")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "crm",
    [
        SqlCrm(url=SecretStr("env:NOT_THERE"), query="SELECT 1"),
        FileCrm.model_validate(
            {"path": "memory://list.csv", "storage_options": {"token": "env:NOT_THERE"}}
        ),
        HubSpotCrm(token=SecretStr("env:NOT_THERE"), list_id="1", properties=["email"]),
    ],
)
def test_list_is_refused_by_what_is_missing(tmp_path: Path, crm: CrmSource) -> None:
    with pytest.raises(SecretUnusable, match=r"not-saved, .*: there is no .* NOT_THERE\."):
        crm.extract(tmp_path / "list.parquet")


@pytest.mark.parametrize(
    "block", [NudgescribeAccount, DataLake, SqlCrm, FileCrm, HubSpotCrm, SalesforceCrm]
)
def test_form_says_of_each_secret_that_it_may_be_elsewhere(block: type[SavedBlock]) -> None:
    fields: dict[str, dict[str, Any]] = block.model_json_schema()["properties"]
    secret = {name for name, each in fields.items() if "writeOnly" in json.dumps(each)}
    secret |= {"storage_options"} & fields.keys()
    assert secret
    assert not [name for name in secret if "env:NAME" not in fields[name]["description"]]
