"""The `nudgeflow` command, from an empty folder on."""

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from runpy import run_module
from unittest.mock import patch

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import DataLake, FileCrm
from deployments.command import app as command
from deployments.command import doctor
from deployments.command.app import NotNamed
from deployments.command.doctor import examine
from deployments.environment import free_port
from deployments.project import NoCampaign, NoProject, NoServer, read_config
from deployments.server import NoAnswer
from deployments.settings import SettingsWrong
from sandbox.seed import Seeded
from tests.conftest import Company, Save, Saved, customers
from tests.support.addresses import silent


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What commands take over from .env goes again."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def project(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    command.init()
    return folder


def variables(seeded: Seeded, url: str, **others: str) -> dict[str, str]:
    secrets = seeded.model_dump(include={"email", "password", "api_key", "api_code", "profile_key"})
    return {
        "NUDGEFLOW_ACCOUNT_BASE_URL": url,
        **{f"NUDGEFLOW_ACCOUNT_{name.upper()}": value for name, value in secrets.items()},
        "NUDGEFLOW_CAMPAIGN_ID": seeded.campaign_id,
        "NUDGEFLOW_WORKSPACE_ID": seeded.workspace_id,
        **others,
    }


def name_blocks(project: Path, **slugs: str) -> None:
    """Names other blocks in prefect.yaml than it has."""
    file = project / "prefect.yaml"
    text = file.read_text()
    for kind, slug in slugs.items():
        text, count = re.subn(rf"(&{kind} .*block_document_slug: )[\w/-]+", rf"\g<1>{slug}", text)
        assert count == 1
    file.write_text(text)


def name_saved(project: Path, saved: Saved) -> None:
    name_blocks(project, **{name: block.block_slug for name, block in saved.blocks.items()})


def findings(environment: dict[str, str]) -> dict[str, tuple[bool, str]]:
    return {each.subject: (each.good, each.said) for each in examine(environment)}


def test_init_writes_a_project_and_changes_nothing_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command.init()
    assert "`nudgeflow bootstrap`" in capsys.readouterr().out
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert ".env" in (tmp_path / ".gitignore").read_text().splitlines()
    assert "refresh-now" in {one["name"] for one in read_config()["deployments"]}
    (tmp_path / ".env").write_text("NUDGEFLOW_CAMPAIGN_ID=mine\n")
    command.init()
    assert ".env: is there, not changed" in capsys.readouterr().out
    assert (tmp_path / ".env").read_text() == "NUDGEFLOW_CAMPAIGN_ID=mine\n"


def test_bootstrap_and_deploy_refuse_without_server_or_campaign(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUDGEFLOW_CAMPAIGN_ID", raising=False)
    for refused in (command.bootstrap, command.deploy, command.schedule):
        with pytest.raises(NoCampaign, match="There is no NUDGEFLOW_CAMPAIGN_ID"):
            refused()
        with temporary_settings({PREFECT_API_URL: None}), pytest.raises(NoServer):
            refused()
    monkeypatch.setenv("NUDGEFLOW_CAMPAIGN_ID", "c")
    nobody = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: nobody}), pytest.raises(NoAnswer, match=nobody):
        command.deploy()
    (project / "prefect.yaml").unlink()
    with pytest.raises(NoProject, match="There is no prefect.yaml"):
        command.deploy()
    (project / "prefect.yaml").write_text("name: other\ndeployments: [\n")
    with pytest.raises(NoProject, match="not valid YAML at or before line 3"):
        command.deploy()
    (project / "prefect.yaml").write_text("name: other\n")
    with pytest.raises(NoProject, match="does not list deployments with name and entrypoint"):
        command.deploy()
    (project / "prefect.yaml").write_text("deployments: [{a: 1}]\n")
    with pytest.raises(NoProject, match="does not list deployments with name and entrypoint"):
        command.deploy()
    (project / ".env").write_bytes("NUDGEFLOW_ACCOUNT_PASSWORD=p\xe4ss".encode("latin-1"))
    with pytest.raises(NoProject, match=r"\.env is not in UTF-8"):
        command.deploy()


@pytest.mark.parametrize("name", ["bootstrap", "deploy", "demo", "up"])
def test_modules_that_were_commands_say_what_to_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"deployments.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit, match=f"`nudgeflow {name}`"):
        run_module(module, run_name="__main__")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--lake", "s3://nope/x"), r"--lake \(of make: LAKE=\) is a URL"),
        (("--segments", "a"), r"Name it with --list \(of make: LIST=\)"),
        (("--delimiter", ";"), "--list"),
        (("--encoding", "latin-1"), "--list"),
    ],
)
def test_demo_refuses_arguments_before_it_writes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=told):
        command.app(["demo", *arguments])
    assert list(tmp_path.iterdir()) == []


def test_doctor_starts_no_server_where_none_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr("deployments.command.doctor.open_client", lambda: started.append("one"))
    with temporary_settings({PREFECT_API_URL: None}):
        found = findings({"NUDGEFLOW_LAKE_ROOT": "here/"})
    assert not started
    assert "There is no PREFECT_API_URL" in found["server"][1]
    assert "once the variables above are right" in found["lake"][1]


def test_switching_nothing_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUDGEFLOW_CAMPAIGN_ID", "c")
    with pytest.raises(NotNamed, match="Nothing to switch on is named"):
        command.schedule("on")


def test_variables_of_the_environment_come_before_those_of_env(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".env").write_text("NUDGEFLOW_CAMPAIGN_ID=c\nNUDGEFLOW_LAKE_ROOT=here/\n")
    monkeypatch.setenv("NUDGEFLOW_LAKE_FORMAT", "no-format")
    with pytest.raises(SettingsWrong, match="LAKE_ROOT.*LAKE_FORMAT"):
        command.bootstrap()
    monkeypatch.setenv("NUDGEFLOW_LAKE_ROOT", "/lake")
    with pytest.raises(SettingsWrong, match="LAKE_FORMAT") as caught:
        command.bootstrap()
    assert "LAKE_ROOT" not in str(caught.value)


def test_doctor_finds_all_well_but_what_runs_flows(
    project: Path, company: Company, save: Save
) -> None:
    saved = save(company, customers(3))
    name_saved(project, saved)
    found = findings(variables(company.seeded, company.sandbox.url))
    good = {subject for subject, (good, _) in found.items() if good}
    found_well = {"account", "campaign", "workspace", "customer list", "lake"}
    assert good == {"server", "project", *found_well}
    assert "the first row has the columns customer_id, " in found["customer list"][1]
    assert not list(saved.root.glob("doctor*"))
    assert "Run `nudgeflow deploy`" in found["deployments"][1]
    assert "`nudgeflow bootstrap`" in found["work pool"][1]
    assert "`prefect worker start --pool nudgeflow`" in found["worker"][1]
    assert found["account"][1] == f"signed in at {company.sandbox.url}; 1 campaign."
    told = " ".join(said for _, said in found.values())
    first = customers(3).row(0, named=True)
    assert not [value for value in map(str, first.values()) if len(value) > 4 and value in told]


def test_doctor_says_what_is_wrong_and_which_blocks_there_are(
    project: Path, company: Company, save: Save
) -> None:
    saved = save(company, customers(3))
    name_saved(project, saved)
    name_blocks(project, crm=f"sql-crm/{saved.name}", lake=f"data-lake/{saved.name}x")
    given = variables(company.seeded, company.sandbox.url)
    given |= {"NUDGEFLOW_CAMPAIGN_ID": "none", "NUDGEFLOW_LAKE": "x"}
    found = findings(given)
    assert "NUDGEFLOW_LAKE is unknown" in found["variables"][1]
    assert (
        f"There is no campaign none. Set it in .env. There are: Welcome back "
        f"{company.seeded.campaign_id}" in found["campaign"][1]
    )
    assert f"sql-crm/{saved.name} is not saved. Saved are: " in found["customer list"][1]
    assert f"Is {saved.crm.block_slug} meant?" in found["customer list"][1]
    assert f"Is {saved.lake.block_slug} meant?" in found["lake"][1]

    file = project / "prefect.yaml"
    written = file.read_text()
    config = yaml.safe_load(written)
    config["deployments"][0]["work_pool"] = {"name": "nudgeflwo"}
    file.write_text(yaml.safe_dump(config))
    assert "work pools that do not exist: nudgeflwo" in findings(given)["deployments"][1]
    file.write_text(written)

    saved.crm_file.unlink()
    saved.root.write_text("a file")
    name_saved(project, saved)
    given = variables(company.seeded, company.sandbox.url, NUDGEFLOW_WORKSPACE_ID="other")
    found = findings(given)
    assert f"NUDGEFLOW_WORKSPACE_ID={company.seeded.workspace_id}" in found["workspace"][1]
    assert {found["customer list"][0], found["lake"][0]} == {False}


def test_doctor_says_which_addresses_are_wrong(
    project: Path, company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    saved = save(company, customers(3))
    name_saved(project, saved)
    host = company.sandbox.url.removeprefix("http://")
    saved.save_account(company.account(base_url=f"https://{host}"))
    store = f"127.0.0.1:{free_port()}"
    DataLake.model_validate(
        {"root": "s3://b/lake", "storage_options": {"endpoint_url": f"http://{store}"}}
    ).save(saved.name, overwrite=True)
    with silent() as nobody:
        FileCrm(path=f"http://{nobody}/customers.csv").save(saved.name, overwrite=True)
        found = findings(variables(company.seeded, company.sandbox.url))
    assert f"{host} speaks http, not https" in found["account"][1]
    assert f"{saved.crm.block_slug} has not answered within 0.2" in found["customer list"][1]
    assert f"endpoint_url: {store} refuses connections" in found["lake"][1]

    DataLake(root="/proc/lake").save(saved.name, overwrite=True)
    name_blocks(project, crm=saved.lake.block_slug)
    found = findings(variables(company.seeded, company.sandbox.url))
    assert "The folder /proc/lake cannot be made: No such file" in found["lake"][1]
    told = found["customer list"][1]
    assert f"names {saved.lake.block_slug} as crm, where it cannot stand. Saved are: " in told


def test_doctor_looks_at_variables_where_nothing_is_saved_or_no_server_answers(
    project: Path, company: Company, tmp_path: Path
) -> None:
    customers(3).write_csv(tmp_path / "customers.csv")
    config = yaml.safe_load((project / "prefect.yaml").read_text())
    assert config["definitions"]["lake"] == {"$ref": {"block_document_slug": "data-lake/main"}}
    name_blocks(project, crm="file-crm/main")
    given = variables(
        company.seeded,
        company.sandbox.url,
        NUDGEFLOW_FILE_CRM_PATH=str(tmp_path / "customers.csv"),
        NUDGEFLOW_LAKE_ROOT=str(tmp_path / "lake"),
    )
    nobody = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: nobody}):
        found = findings(given)
    assert nobody in found["server"][1]
    assert {name for name, (good, _) in found.items() if not good} == {"server"}
    assert "`nudgeflow bootstrap`" in found["customer list"][1]
    with temporary_settings({PREFECT_API_URL: nobody}):
        found = findings({})
    assert "fill it in" in found["lake"][1]
    (project / "prefect.yaml").unlink()
    assert [*findings(given)] == ["server", "project", "work pool", "worker"]


def test_doctor_tells_that_env_was_changed_since_it_was_saved(
    project: Path, company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MAIN", "edited")
    name_blocks(project, lake="data-lake/edited")
    DataLake(root=str(tmp_path / "lake")).save("edited", overwrite=True)
    given = variables(company.seeded, company.sandbox.url)
    told = "What .env describes differs from what is saved: `nudgeflow bootstrap` saves it."
    for root, differs in (("lake", False), ("other", True)):
        found = findings({**given, "NUDGEFLOW_LAKE_ROOT": str(tmp_path / root)})
        assert (told in found["lake"][1]) is differs
