"""The image, as far as it can be had without a container engine: the steps of its Dockerfile are
taken in a folder of their own, and its commands run there as a user who owns nothing of it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import yaml

from blocks.extras import MODULES
from deployments.environment import free_port
from deployments.local import wait_for

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deployments/Dockerfile"
VENV = "/opt/venv"
NOBODY = 65534
SECONDS = 120
LOAD = """
import sys
from deployments.server import TEMPLATE
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
for entrypoint in sys.argv[1:]:
    assert isinstance(load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False), Flow)
assert TEMPLATE.is_file()
"""
FOUND = """
import sys
from importlib.util import find_spec
print(*[name for name in sys.argv[1:] if find_spec(name)])
"""


@dataclass(frozen=True)
class Instruction:
    stage: str
    name: str
    text: str


def instructions() -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    stage, found = "", []
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.split()[-1]
        found.append(Instruction(stage, name, " ".join(rest.split())))
    return found


def of(stage: str, name: str) -> list[str]:
    return [one.text for one in instructions() if (one.stage, one.name) == (stage, name)]


def command(stage: str) -> list[str]:
    (text,) = of(stage, "CMD")
    return yaml.safe_load(text)


def context(folder: Path) -> Path:
    """What `.dockerignore` lets into the build."""
    hidden, *shown, caches = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"
    ]
    assert (hidden, caches) == ("*", "**/__pycache__")
    for pattern in shown:
        for path in ROOT.glob(pattern.removeprefix("!")):
            copy(path, folder / path.relative_to(ROOT))
    return folder


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@dataclass(frozen=True)
class Image:
    """A stage's files: its virtual environment, its working directory, a home."""

    python: Path
    venv: Path
    work: Path
    home: Path

    def install(self, stage: str, context: Path) -> None:
        for step in of(stage, "RUN"):
            line = re.sub(r"--mount=\S+ ", "", step).replace(VENV, str(self.venv))
            path = f"{self.python}:{os.environ['PATH']}"
            subprocess.run(
                ["sh", "-ec", line], cwd=context, env={**os.environ, "PATH": path}, check=True
            )

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[bytes]":
        (variables,) = of("base", "ENV")
        given = dict(one.split("=") for one in variables.split())
        environment = {
            **given,
            "PATH": f"{self.venv / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.home),
            "LD_LIBRARY_PATH": str(self.python.parent / "lib"),  # a copied Python's own
            "PREFECT_UI_STATIC_DIRECTORY": f"{self.home}{given['PREFECT_UI_STATIC_DIRECTORY']}",
        }
        return subprocess.Popen(
            ["env", *command], cwd=self.work, env=environment, **as_nobody(), **options
        )

    @contextmanager
    def serving(self, *command: str) -> Iterator[str]:
        port = free_port()
        process = self.start(*command, "--port", str(port))
        try:
            wait_for(url := f"http://127.0.0.1:{port}", process, SECONDS)
            yield url
        finally:
            process.terminate()
            process.wait()

    def run(self, *command: str) -> str:
        process = self.start(*command, stdout=subprocess.PIPE)
        printed, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
        return printed.decode()


def python_for_all(folder: Path) -> Path:
    """The programs of this Python, or of a copy if it lies where only its owner gets to."""
    base = Path(sys.base_prefix)
    if all(place.stat().st_mode & 0o001 for place in (base, *base.parents)):
        return Path(sys.executable).parent
    shutil.copytree(base, folder, symlinks=True, ignore=not_python)
    return folder / "bin"


def not_python(folder: str, names: list[str]) -> list[str]:
    installed = Path(folder).name == "site-packages"
    return [name for name in names if name == "test" or (installed and not name.startswith("pip"))]


def as_nobody() -> dict[str, Any]:
    root = os.geteuid() == 0
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        python = python_for_all(folder / "python")
        image = Image(python, folder / "venv", folder / "work", folder / "home")
        image.home.mkdir()
        image.home.chmod(0o777)
        files = context(folder / "context")
        image.install("build", files)
        for line in of("worker", "COPY"):
            if not line.startswith("--from="):
                source, target = line.split()
                copy(files / source, image.work / target / (source if target == "./" else ""))
        yield image


@pytest.fixture(scope="module")
def sandbox_image(image: Image) -> Image:
    folder = image.venv.parent
    other = replace(image, venv=folder / "sandbox-venv", work=folder)
    shutil.copytree(image.venv, other.venv, symlinks=True, copy_function=os.link)
    other.install("build-sandbox", folder / "context")
    return other


def test_dockerfile_has_no_findings() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    subprocess.run([linter, "--no-color", "--failure-threshold", "style", DOCKERFILE], check=True)


def test_stages_stand_on_one_exact_python() -> None:
    (base,) = of("", "ARG")
    assert re.fullmatch(r"PYTHON=3\.11\.\d+-slim-bookworm", base)
    stages = {one.stage: one.text.split()[0] for one in instructions() if one.name == "FROM"}
    assert stages == {
        "build": "python:${PYTHON}",
        "build-sandbox": "build",
        "base": "python:${PYTHON}",
        "sandbox": "base",
        "worker": "base",
    }
    assert list(stages)[-1] == "worker"


def test_image_runs_as_a_number_that_is_not_root() -> None:
    assert of("base", "USER") == ["1001:1001"]
    assert not of("worker", "USER") + of("sandbox", "USER")


def test_build_context_has_no_tests_benchmarks_or_secrets(tmp_path: Path) -> None:
    context(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"pyproject.toml", "constraints.txt", "flows/refresh.py", "prefect.yaml"} <= names
    assert not [name for name in names if re.search(r"^(tests|benchmarks)(/|$)|(^|/)\.", name)]


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_image_holds_what_runs_and_nothing_that_tests_or_builds(image: Image) -> None:
    assert "3.9" in image.run("prefect", "version")
    assert "--pool" in image.run(*command("worker"), "--help")
    assert "flow" in image.run("prefect", "flow-run", "execute", "--help")
    assert "environment variables" in image.run("nudgeflow", "bootstrap", "--help")
    deployments = yaml.safe_load((image.work / "prefect.yaml").read_text())["deployments"]
    image.run("python", "-c", LOAD, *{one["entrypoint"] for one in deployments})
    used = [name for extra, name in MODULES.items() if extra not in ("ray", "duckdb")]
    used += ["prefect_kubernetes", "prefect_redis", "s3fs"]
    unused = ["pip", "setuptools", "pytest", "moto", "ruff", "tests", "benchmarks", "multipart"]
    assert image.run("python", "-c", FOUND, *used, *unused).split() == used


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_image_runs_prefects_server_and_the_sandbox(image: Image, sandbox_image: Image) -> None:
    data = sandbox_image.home / "data"
    serve = [str(data) if part == "/data" else part for part in command("sandbox")]
    with image.serving("prefect", "server", "start") as url:
        page = httpx.get(f"{url}/", follow_redirects=True)
    assert (page.status_code, "<title>Prefect" in page.text) == (200, True)
    with sandbox_image.serving(*serve) as url:
        # Another address of this machine, which it hears only if it listens to all of them.
        assert httpx.get(f"{url.replace('127.0.0.1', '127.0.0.2')}/docs").status_code == 200
