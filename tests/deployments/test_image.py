"""The images' Dockerfile, read; tests/containers build and run them."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.image import DOCKERFILE, ROOT, context, instructions, of


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
        "build-worker": "build",
        "base": "python:${PYTHON}",
        "sandbox": "base",
        "worker": "base",
    }
    assert list(stages)[-1] == "worker"


def test_image_runs_as_a_number_that_is_not_root() -> None:
    assert of("base", "USER") == ["1001:1001"]
    assert not of("worker", "USER") + of("sandbox", "USER")


def test_image_takes_only_wheels_whose_hashes_are_known_in_the_versions_of_the_constraints() -> (
    None
):
    wanted = (ROOT / "deployments/requirements.txt").read_text()
    pinned = re.split(r"^(?=\w)", wanted, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in each for each in pinned)
    assert "://" not in wanted
    versions = dict(each.split()[0].split("==") for each in pinned)
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        assert versions.get(name.lower().replace("_", "-").replace(".", "-"), version) == version


def test_build_context_has_no_tests_benchmarks_or_secrets(tmp_path: Path) -> None:
    context(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"pyproject.toml", "constraints.txt", "flows/refresh.py", "prefect.yaml"} <= names
    assert not [name for name in names if re.search(r"^(tests|benchmarks)(/|$)|(^|/)\.", name)]
