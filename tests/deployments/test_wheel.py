"""The wheel, in an environment that has nothing else of the project: from `nudgeflow init` in an
empty folder to a refresh.
"""

import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email import message_from_string
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from blocks import DataLake
from deployments.environment import free_port
from docs import build as site
from sandbox import demo_customers
from sandbox.seed import Seeded
from tests.support.clock import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("nudgescribe", "blocks", "tasks", "flows", "sandbox", "deployments")
FILES = ("pyproject.toml", "prefect.yaml", "constraints.txt", "LICENSE", "*.md")
TREES = (*PACKAGES, "docs", "examples")
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
SCRIPT = """#!{python}
import sys
from {module} import {name}
sys.exit({name}())
"""
CUSTOMERS = 5000
SECONDS = 240.0
NOT_OURS = "raise SystemExit('these are flows of somebody else')\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    context = tmp_path_factory.mktemp("context")
    for file in (file for name in FILES for file in ROOT.glob(name)):
        shutil.copy(file, context)
    for name in TREES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, context / name, symlinks=True, ignore=ignored)
    command = [sys.executable, "-c", BUILD]
    done = subprocess.run(command, cwd=context, check=True, stdout=subprocess.PIPE, text=True)
    return context / "dist" / done.stdout.splitlines()[-1]


@dataclass
class Shell:
    """A project's folder, with the programs of the environment that has the wheel."""

    folder: Path
    programs: Path
    port: int
    running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of this process, which knows the repository; the server's address is in .env."""
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "HOME": str(self.folder.parent),
            "PREFECT_HOME": str(self.folder.parent / "prefect"),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
        }

    def run(self, command: str, *, expected: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            timeout=SECONDS,
            text=True,
        )
        assert done.returncode == expected, done.stdout
        return done.stdout

    def start(self, command: str) -> None:
        self.running.append(
            subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment
            )
        )

    def fill_in(self, **values: str) -> None:
        """Fills in lines of .env, those that are commented out, too."""
        file = self.folder / ".env"
        text = file.read_text()
        for name, value in values.items():
            text, count = re.subn(
                rf"(?m)^(?:# )?{name}=.*$", lambda _, v=f"{name}={value}": v, text
            )
            assert count == 1, name
        file.write_text(text)


@pytest.fixture
def shell(wheel: Path, tmp_path: Path) -> Iterator[Shell]:
    """An environment with the wheel; its libraries are those of this one, without the project."""
    home = tmp_path / "environment"
    venv.create(home, symlinks=True)
    libraries = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    with ZipFile(wheel) as archive:
        archive.extractall(libraries)
    others = sysconfig.get_path("purelib")
    Path(libraries, "libraries.pth").write_text(others)
    for name in ("nudgeflow", "prefect"):
        write_script(home / "bin", [libraries, others], name)
    folder = tmp_path / "project"
    folder.mkdir()
    shell = Shell(folder, home / "bin", free_port())
    try:
        yield shell
    finally:
        for process in reversed(shell.running):  # a worker asks its server until it ends
            process.terminate()
            process.wait(60)


def write_script(programs: Path, libraries: list[str], name: str) -> None:
    """What pip writes for a console script."""
    point = next(
        point
        for each in distributions(path=libraries)
        for point in each.entry_points.select(group="console_scripts", name=name)
    )
    script = programs / name
    given = {"python": programs / "python", "module": point.module, "name": point.attr}
    script.write_text(SCRIPT.format(**given))
    script.chmod(0o755)


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False


def write_crm(file: Path) -> None:
    people = list(demo_customers.customers(CUSTOMERS, demo_customers.PLANS_BEFORE))
    with closing(sqlite3.connect(file)) as crm, crm:
        crm.execute(f"CREATE TABLE customers ({', '.join(people[0])})")
        values = ", ".join(f":{name}" for name in people[0])
        crm.executemany(f"INSERT INTO customers VALUES ({values})", people)


def add_packages(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(NOT_OURS)


def test_wheel_has_all_that_people_need(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = message_from_string(archive.read(metadata).decode())
        template = archive.read("deployments/templates/prefect.yaml")
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    templates = {f"deployments/templates/{name}" for name in ("env", "gitignore", "README.md")}
    assert templates | {"deployments/automations.yaml", "sandbox/templates/overview.html"} <= names
    assert template == (ROOT / "prefect.yaml").read_bytes()
    assert about.get_all("Project-URL")
    documents = ("README.md", "docs/lake.md", "docs/img/logo.png")  # which blocks refer to
    assert {name.partition(".data/data/share/doc/nudgeflow/")[2] for name in names} >= {*documents}
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_documents_of_the_wheel_link_to_files_that_come_with_them(
    wheel: Path, tmp_path: Path
) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (documents,) = tmp_path.glob("*.data/data/share/doc/nudgeflow")
    pages = [*documents.rglob("*.md")]
    broken = [
        f"{page.relative_to(documents)}: {link}"
        for page in pages
        for link in filter(site.is_relative, site.links(page.read_text()))
        if not (page.parent / link.partition("#")[0]).exists()
    ]
    assert not broken
    assert {"README.md", "CHANGELOG.md"} <= {page.name for page in pages}


def test_empty_folder_becomes_a_project_whose_campaign_is_refreshed(shell: Shell) -> None:
    assert "prefect.yaml: written" in shell.run("nudgeflow init")
    # What has our names, in the folder where everything is started, is somebody else's.
    add_packages(shell.folder, "flows", "tasks", "sandbox")
    data, port = shell.folder.parent / "sandbox", free_port()
    url, api = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{shell.port}/api"
    seeded = Seeded.model_validate_json(shell.run(f"python -P -m sandbox seed --data {data}"))
    shell.start(f"python -P -m sandbox serve --data {data} --port {port}")
    write_crm(shell.folder.parent / "crm.db")
    secrets = seeded.model_dump(include={"email", "password", "api_key", "api_code", "profile_key"})
    shell.fill_in(
        PREFECT_API_URL=api,
        NUDGEFLOW_ACCOUNT_BASE_URL=url,
        NUDGEFLOW_WORKSPACE_ID=seeded.workspace_id,
        NUDGEFLOW_SQL_CRM_URL=f"sqlite:///{shell.folder.parent / 'crm.db'}",
        NUDGEFLOW_SQL_CRM_QUERY='"SELECT * FROM customers"',
        NUDGEFLOW_LAKE_ROOT=str(shell.folder / "lake"),
        **{f"NUDGEFLOW_ACCOUNT_{name.upper()}": value for name, value in secrets.items()},
    )
    until(lambda: answers(url))
    # Whoever has no campaign yet is told which there are.
    assert f"Welcome back {seeded.campaign_id}" in shell.run("nudgeflow doctor", expected=1)
    shell.fill_in(NUDGEFLOW_CAMPAIGN_ID=seeded.campaign_id)
    shell.start("prefect server start")
    until(lambda: answers(f"{api}/health"))
    add_packages(shell.folder, "blocks")  # a server that makes its database would take it for ours
    assert "block sql-crm/main: created" in shell.run("nudgeflow bootstrap")
    assert "on  resume-reviewed" in shell.run("nudgeflow deploy")
    assert "to do worker" in shell.run("nudgeflow doctor", expected=1)
    watched = shell.folder.parent / "watched"
    watched.touch()
    shell.start(f"prefect deployment run plan-refresh/plan-refresh --watch > {watched}")
    until(lambda: "no worker has taken a flow run" in " ".join(watched.read_text().split()))
    shell.start("prefect worker start --pool nudgeflow")
    workers = f"{api}/work_pools/nudgeflow/workers/filter"
    until(lambda: httpx.post(workers, json={}).json())
    findings = shell.run("nudgeflow doctor").splitlines()
    assert len(findings) == 11
    assert all(finding.startswith("   ok ") for finding in findings)
    until(lambda: "Flow run finished successfully" in watched.read_text())
    assert re.search(r"rows extracted +5,000", watched.read_text())
    said = shell.run("prefect deployment run campaign-refresh/refresh-now --watch")
    assert "Flow run finished successfully" in said
    assert re.search(r"from the CRM +5,000", said)
    assert f"This page in Prefect's UI: http://127.0.0.1:{shell.port}/" in " ".join(said.split())
    runs = DataLake(root=str(shell.folder / "lake")).runs()
    assert runs["rows"].to_list() == [CUSTOMERS]
