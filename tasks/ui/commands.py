"""Commands that messages tell people to run."""

import json
import shlex
from contextlib import suppress

from blocks import DataLake, NudgescribeAccount
from blocks.saved import MAIN, NOT_SAVED, slug_reference


def publish_command(campaign_id: str, account: NudgescribeAccount, lake: DataLake) -> str:
    """Return the command that publishes and fetches the run of a refresh that has been left."""
    return _run("publish-campaign/publish-campaign", account, lake, campaign_id=campaign_id)


def abandon_command(campaign_id: str, account: NudgescribeAccount, lake: DataLake) -> str:
    """Return the command that ends a refresh that cannot be finished."""
    named = {"campaign_id": campaign_id, "who": "YOU", "why": "REASON"}
    return _run("abandon-refresh/abandon-refresh", account, lake, **named)


def _run(deployment: str, account: NudgescribeAccount, lake: DataLake, **parameters: str) -> str:
    # The deployments have the blocks named `main` already.
    for name, block in {"account": account, "lake": lake}.items():
        if block.block_name not in (MAIN, NOT_SAVED):
            parameters[name] = json.dumps(slug_reference(block.block_slug))
    given = " ".join(f"--param {_argument(name, value)}" for name, value in parameters.items())
    return f"`prefect deployment run {deployment} {given}`"


def _argument(name: str, value: str) -> str:
    """Return a parameter as the command takes it: as JSON where it would be taken for JSON."""
    with suppress(ValueError):
        if not isinstance(json.loads(value), dict):
            value = json.dumps(value)
    return shlex.quote(f"{name}={value}")
