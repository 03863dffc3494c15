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

from blocks import CampaignPortfolio
from blocks.saved import SavedBlock, describe_saved
from deployments import schedules
from deployments.project import DEPLOYMENTS, full_name, read_config
from deployments.server import find_block
from nudgescribe.errors import NudgeflowError, first_ten

PREFECT = "import blocks, flows, tasks; from prefect.cli import app; app()"
"""Prefect's command. It looks for flows in the current folder first, which may have packages with
our names that are not meant; so ours are imported before.
"""


class NotDeployed(NudgeflowError):
    """Prefect's own command could not deploy the flows."""

    advice = (
        "The output above says why. Work pools are made by `nudgeflow bootstrap`; run this in the "
        "project's folder, with PREFECT_API_URL set."
    )


class BlocksMissing(NudgeflowError):
    """Deployments name blocks that are not saved."""

    advice = (
        f"All is deployed, but flow runs of these will fail. Correct {DEPLOYMENTS}, or save the "
        "blocks with `nudgeflow bootstrap`, then deploy again."
    )


def deploy(file: Path = DEPLOYMENTS) -> Iterator[str]:
    """Deploy all flows of a prefect.yaml, and remove our deployments of old names.

    Schedules that people have added on the server stay. Yield a line for each deployment of an old
    name.

    Raises NoProject; NotDeployed if Prefect's own command fails; at the end BlocksMissing.
    """
    config = read_config(file)
    entries = config["deployments"]
    with get_client(sync_client=True) as client:
        present = schedules.find_present(client, entries)
        schedules.keep_states(client, entries, present)
        _deploy_all(config)
        schedules.restore_added(client, present)
        schedules.remove_unlisted(client, entries, present)
        missing: dict[str, list[str]] = {}
        for entry in entries:
            for slug in _bind(client, full_name(entry)):
                missing.setdefault(slug, []).append(entry["name"])
        yield from schedules.retire(client, entries)
    if problems := [*_describe(missing)]:
        raise BlocksMissing(" ".join(problems))


def _deploy_all(config: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, DEPLOYMENTS.name)
        file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-P", "-c", PREFECT, "--no-prompt", "deploy", "--all"]
        command += ["--prefect-file", str(file)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            # Below the frame that names the deployment, Prefect says what is wrong with it.
            print(done.stdout.rpartition("╯\n")[2], file=sys.stderr)
            raise NotDeployed(f"Prefect could not deploy what {DEPLOYMENTS} lists.")


def _bind(client: SyncPrefectClient, name: str) -> Iterator[str]:
    """Refer to blocks by their ids; yield those that are not saved, as `type/name`."""
    deployment = client.read_deployment_by_name(name)
    bound = dict(deployment.parameters)
    for parameter, slug in _slugs(deployment.parameters):
        kind, _, block = slug.partition("/")
        if saved := find_block(client, kind, block):
            bound[parameter] = {"$ref": {"block_document_id": str(saved.id)}}
        else:
            yield slug
    if bound != deployment.parameters:
        client.update_deployment(deployment.id, DeploymentUpdate(parameters=bound))


def _describe(missing: dict[str, list[str]]) -> Iterator[str]:
    """Yield a sentence for each block that is not saved and should be."""
    types = get_registry_for_type(Block) or {}
    for slug, deployments in missing.items():
        kind = types.get(slug.partition("/")[0], SavedBlock)
        # Who has one campaign needs no portfolio, and the deployments of one are off.
        if kind is not CampaignPortfolio:
            named = first_ten(deployments)
            yield f"{slug}, named by {named}, is not saved. {describe_saved(kind, slug)}"


def _slugs(parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parameters that name a block, each with the block's type and name."""
    for parameter, value in parameters.items():
        match value:
            case {"$ref": {"block_document_slug": str(slug)}}:
                yield parameter, slug
            case _:
                pass


if __name__ == "__main__":  # a command in version 0.1
    sys.exit("This is `nudgeflow deploy` now.")
