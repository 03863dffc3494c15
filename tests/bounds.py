"""Runs some quick tests with the oldest libraries that pyproject.toml allows, on the oldest Python,
and with the newest ones, on each other Python that is here; each in an environment of its own.

All other tests run with the constraints on the oldest Python.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
AT_ONCE = 3
SECURITY = "tests/sandbox/api/security"
TESTS = (
    "tests/test_documents.py",  # it imports each module
    "tests/blocks/test_extras.py::test_extra_can_be_imported",
    "tests/blocks/crm/sql/test_sql.py::test_values_become_text",
    "tests/blocks/storage/test_lake.py",
    "tests/flows/refresh/test_plan.py::test_plan_has_the_numbers_of_the_service",
    "tests/sandbox/api/test_admin_page.py"
    "::test_fault_form_switches_a_fault_on_and_clear_button_off",
    f"{SECURITY}/test_tokens.py::test_forged_token_is_an_auth_error",
    f"{SECURITY}/test_uploads.py::test_content_type_of_a_form_may_be_in_capitals",
    "tests/tasks/refresh/test_report.py",
)


@dataclass(frozen=True)
class Tried:
    """An environment, and what its commands have printed if one of them failed."""

    name: str
    passed: bool
    printed: str


def try_bounds(python: Path, version: str, resolution: str) -> Tried:
    """Installs what the resolution chooses, and runs the tests with it."""
    name = f"Python {version}, {resolution}"
    with TemporaryDirectory() as folder:
        own = Path(folder, "bin/python")
        uv = [sys.executable, "-m", "uv"]
        chosen = ["--resolution", resolution, "-r", "pyproject.toml", "--extra", "development"]
        marks = ["-m", "not s3 and not chaos and not stack", "-p", "no:cacheprovider", "-q"]
        printed = ""
        for command in (
            [*uv, "venv", "--quiet", "--clear", "--python", python, folder],
            [*uv, "pip", "install", "--quiet", "--python", own, *chosen],
            [own, "-m", "pytest", *marks, *TESTS],
        ):
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            printed += done.stdout
            if done.returncode:
                return Tried(name, False, printed)
        return Tried(name, True, printed.strip().rpartition("\n")[2])


def find_python(version: str) -> Path | None:
    """The interpreter of that version on the path, or else one of pyenv's."""
    on_path = shutil.which(f"python{version}")
    of_pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
    for each in filter(None, (on_path, *of_pyenv)):
        # A shim of pyenv is there for versions that are not chosen, too, and fails.
        if subprocess.run([each, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            return Path(each)
    return None


def main() -> None:
    here = {version: python for version in PYTHONS if (python := find_python(version))}
    for version in PYTHONS:
        if version not in here:
            print(f"Python {version} is not here: not tried.", flush=True)
    oldest = next(iter(here))
    newer = [version for version in here if version != oldest] or [oldest]
    environments = [(oldest, "lowest-direct"), *((version, "highest") for version in newer)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tried = [
            *pool.map(lambda each: try_bounds(here[each[0]], *each), environments),
        ]
    for each in tried:
        print(f"{each.name}: {each.printed}", flush=True)
    if not all(each.passed for each in tried):
        sys.exit(1)


if __name__ == "__main__":
    main()
