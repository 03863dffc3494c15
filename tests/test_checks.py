"""What is checked before a commit and after a push is what people run, by the same tools."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
BIN = Path(sys.executable).parent


def run(*command: str, folder: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True
    )


def test_workflow_is_one_that_github_takes() -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    done = run(f"{BIN}/check-jsonschema", *schema, str(WORKFLOW))
    assert done.returncode == 0, done.stdout


def test_workflow_runs_what_ci_runs_and_may_change_nothing() -> None:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == ".ci/run"
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert workflow["permissions"] == {"contents": "read"}
    assert job["timeout-minutes"]
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"python:{oldest.removeprefix('>=')}-" in job["container"]["image"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with our hooks and settings, and one module of a package that may not be."""
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv").symlink_to(BIN.parent)
    for command in (["init", "--quiet"], ["add", "."]):
        assert run("git", *command, folder=tmp_path).returncode == 0
    return tmp_path


def test_hooks_repair_and_refuse_a_file_by_our_own_tools(repository: Path) -> None:
    module = repository / "module.py"
    module.write_text("import os\nimport sys\n\nprint( sys.path )\n")
    run("git", "add", "module.py", folder=repository)
    apart = {"SKIP": "pyright,import-linter", "PRE_COMMIT_HOME": str(repository / "cache")}
    hooks = (f"{BIN}/pre-commit", "run", "--files", "module.py")
    done = run(*hooks, folder=repository, **apart)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "T201" in done.stdout
    assert module.read_text() == "import sys\n\nprint(sys.path)\n"


def test_no_hook_brings_a_version_of_its_own() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [each["repo"] for each in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
