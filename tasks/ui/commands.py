"""Commands that messages tell people to run."""

import json
import shlex
from contextlib import suppress


def publish_command(campaign_id: str) -> str:
    """Return the command that publishes and fetches the run of a refresh that has been left."""
    return _run("publish-campaign/ad-hoc", campaign_id=campaign_id)


def abandon_command(campaign_id: str) -> str:
    """Return the command that ends a refresh that cannot be finished."""
    return _run("abandon-refresh/ad-hoc", campaign_id=campaign_id, who="YOU", why="REASON")


def _run(deployment: str, **parameters: str) -> str:
    given = " ".join(f"--param {_argument(name, value)}" for name, value in parameters.items())
    return f"`prefect deployment run {deployment} {given}`"


def _argument(name: str, value: str) -> str:
    """Return a parameter as the command takes it: as JSON where it would be taken for JSON."""
    with suppress(ValueError):
        json.loads(value)
        value = json.dumps(value)
    return shlex.quote(f"{name}={value}")
