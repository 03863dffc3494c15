"""Deploy the flows of prefect.yaml and bind their parameters to the saved blocks.

Prefect accepts a block's type and name as a parameter, but its forms then show no block as chosen;
for a block's id they show its name.
"""

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate

from deployments.server import find_block
from nudgescribe.errors import NudgeflowError

FILE = Path("prefect.yaml")


class NotDeployed(NudgeflowError):
    """Prefect's own command could not deploy the flows."""

    advice = "The output above says why. Run it in the project's folder, with PREFECT_API_URL set."


def deploy() -> Iterator[str]:
    """Deploy all flows; yield a line for each parameter that names a block which is not saved.

    Raises NotDeployed if Prefect's own command fails.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise NotDeployed("Prefect could not deploy what prefect.yaml lists.")
    listed = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    with get_client(sync_client=True) as client:
        for each in cast(list[dict[str, Any]], listed):
            flow = str(each["entrypoint"]).rpartition(".")[2].replace("_", "-")
            yield from _bind(client, f"{flow}/{each['name']}")


def _bind(client: SyncPrefectClient, name: str) -> Iterator[str]:
    deployment = client.read_deployment_by_name(name)
    bound = dict(deployment.parameters)
    for parameter, slug in _slugs(deployment.parameters):
        kind, _, block = slug.partition("/")
        if saved := find_block(client, kind, block):
            bound[parameter] = {"$ref": {"block_document_id": str(saved.id)}}
        else:
            yield f"{name}: its parameter {parameter} names block {slug}, which is not saved"
    if bound != deployment.parameters:
        client.update_deployment(deployment.id, DeploymentUpdate(parameters=bound))


def _slugs(parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parameters that name a block, each with the block's type and name."""
    for parameter, value in parameters.items():
        match value:
            case {"$ref": {"block_document_slug": str(slug)}}:
                yield parameter, slug
            case _:
                pass


def main() -> None:
    """Deploy all flows, and print what they lack."""
    ArgumentParser(prog="python -m deployments.deploy", description=__doc__).parse_args()
    try:
        for line in deploy():
            print(line, flush=True)
    except NudgeflowError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
