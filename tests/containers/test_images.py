"""The images as they are built: what they hold, how big they are, and who runs them."""

import json
from importlib.metadata import version
from typing import Any

import pytest
import yaml

from blocks.extras import MODULES
from tests.support.containers import Stack
from tests.support.image import ROOT, of

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

IMAGES = {"nudgeflow-worker:built": 1.0e9, "nudgeflow-sandbox:built": 0.8e9}
"""As built, and the most bytes that each may have."""
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
INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps({each.name: each.version for each in distributions()}))
"""


def run(stack: Stack, image: str, *command: str) -> str:
    """What a command prints in a container that may change nothing, but for its /tmp."""
    return stack.podman(
        "run", "--rm", "--read-only", "--pull=never", "--network=none", image, *command
    )


@pytest.mark.parametrize(("image", "most"), IMAGES.items())
def test_image_is_small_says_what_it_is_and_is_run_by_a_number(
    image: str, most: float, stack: Stack
) -> None:
    (there,) = json.loads(stack.podman("image", "inspect", image))
    assert there["Size"] < most
    assert there["Config"]["User"] == "1001:1001"
    labels = {key.rpartition(".")[2]: each for key, each in there["Config"]["Labels"].items()}
    assert labels["title"] == "Nudgeflow"
    assert labels["licenses"] == "Apache-2.0"
    assert run(stack, image, "id", "-u") == "1001"


@pytest.mark.parametrize("image", IMAGES)
def test_image_lists_what_it_holds(image: str, stack: Stack) -> None:
    bill = json.loads(run(stack, image, "cat", "/opt/venv/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {each["name"]: each["version"] for each in bill["components"]}
    installed: dict[str, Any] = json.loads(run(stack, image, "python", "-c", INSTALLED))
    assert installed == {**listed, "nudgeflow": version("nudgeflow")}


def test_worker_holds_what_runs_and_nothing_that_tests_or_builds(stack: Stack) -> None:
    image = "nudgeflow-worker:built"
    assert "3.9" in run(stack, image, "prefect", "version")
    assert "flow" in run(stack, image, "prefect", "flow-run", "execute", "--help")
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    run(stack, image, "python", "-c", LOAD, *{one["entrypoint"] for one in deployments})
    (extras,) = of("build-worker", "ARG")
    given = extras.removeprefix("EXTRAS=").split(",")
    used = [name for extra, name in MODULES.items() if extra in given]
    used += ["prefect_kubernetes", "prefect_redis", "s3fs", "redis"]
    unused = ["pip", "setuptools", "pytest", "moto", "ruff", "tests", "benchmarks", "multipart"]
    assert run(stack, image, "python", "-c", FOUND, *used, *unused).split() == used


def test_sandbox_holds_nothing_of_prefect(stack: Stack) -> None:
    names = ["sandbox", "prefect", "pip", "setuptools"]
    assert run(stack, "nudgeflow-sandbox:built", "python", "-c", FOUND, *names) == "sandbox"


def test_nobody_needs_a_shell(stack: Stack) -> None:
    for service in ("worker", "server", "services", "sandbox"):
        found = stack.inside(service, "python", "-c", "import shutil; print(shutil.which('sh'))")
        assert found == "None"
