"""Deploy the flows of prefect.yaml and bind their parameters to the saved blocks.

Prefect accepts a block's type and name as a parameter, but its forms then show no block as chosen;
for a block's id they show its name. Its own command would switch schedules and triggers as the file
says; here each keeps the state that it has on the server.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.utilities.dispatch import get_registry_for_type

from blocks.saved import SavedBlock, describe_saved
from deployments import schedules
from deployments.project import DEPLOYMENTS, full_name, read_config
from deployments.server import find_block
from nudgescribe.errors import NudgeflowError

PREFECT = "import blocks, flows, tasks; from prefect.cli import app; app()"
"""Prefect's command. It looks for flows in the current folder first, which may have packages with
our names that are not meant; so ours are imported before.
"""


class NotDeployed(NudgeflowError):
    """Prefect's own command could not deploy the flows."""

    advice = "The output above says why. Run it in the project's folder, with PREFECT_API_URL set."


def deploy(file: Path = DEPLOYMENTS) -> Iterator[str]:
    """Deploy all flows of a prefect.yaml, and remove our deployments of old names.

    Schedules that people have added on the server stay. Yield a line for each parameter that names
    a block which is not saved, and for each deployment of an old name.

    Raises NoProject; NotDeployed if Prefect's own command fails.
    """
    config = read_config(file)
    entries = config["deployments"]
    with get_client(sync_client=True) as client:
        present = schedules.find_present(client, entries)
        schedules.keep_states(client, entries, present)
        _deploy_all(config)
        schedules.restore_added(client, present)
        for entry in entries:
            yield from _bind(client, full_name(entry))
        yield from schedules.retire(client, entries)


def _deploy_all(config: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, DEPLOYMENTS.name)
        file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-P", "-c", PREFECT, "--no-prompt", "deploy", "--all"]
        command += ["--prefect-file", str(file)]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise NotDeployed(f"Prefect could not deploy what {DEPLOYMENTS} lists.")


def _bind(client: SyncPrefectClient, name: str) -> Iterator[str]:
    deployment = client.read_deployment_by_name(name)
    bound = dict(deployment.parameters)
    for parameter, slug in _slugs(deployment.parameters):
        kind, _, block = slug.partition("/")
        if saved := find_block(client, kind, block):
            bound[parameter] = {"$ref": {"block_document_id": str(saved.id)}}
        else:
            types = get_registry_for_type(Block) or {}
            there = describe_saved(types.get(kind, SavedBlock), slug)
            said = f"names block {slug}, which is not saved. {there}"
            yield f"{name}: its parameter {parameter} {said}"
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
