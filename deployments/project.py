"""A project's folder: its prefect.yaml and .env, and what they must say."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from nudgescribe.errors import NudgeflowError

DEPLOYMENTS = Path("prefect.yaml")
VARIABLES = Path(".env")
TEMPLATES = Path(__file__).parent / "templates"
CAMPAIGN = "NUDGEFLOW_CAMPAIGN_ID"

Entry = dict[str, Any]
"""A deployment as prefect.yaml describes it."""


class NoProject(NudgeflowError):
    """The current folder has no usable prefect.yaml, or an .env that cannot be read."""

    advice = "Nothing was changed. Go to the project's folder, or make one with `nudgeflow init`."


class NoServer(NudgeflowError):
    """Nothing says which Prefect server is meant."""

    advice = (
        "Nothing was changed. Set PREFECT_API_URL in .env or in the environment, such as "
        "http://127.0.0.1:4200/api; `prefect server start` starts a server there."
    )


class NoCampaign(NudgeflowError):
    """Nothing says which campaign is to be refreshed."""

    advice = f"Nothing was changed. Set {CAMPAIGN} in .env or in the environment."


def read_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with what .env adds; what the environment has comes first.

    Raises NoProject.
    """
    try:
        read = dotenv_values(VARIABLES, interpolate=False)
    except UnicodeDecodeError:
        raise NoProject(f"{VARIABLES} is not in UTF-8: save it in that encoding.") from None
    return {**{name: value for name, value in read.items() if value}, **environment}


def require(environment: Mapping[str, str], server: str | None) -> None:
    """Check that a server and a campaign are named. Raises NoServer, NoCampaign.

    Without an address Prefect would set up a server of its own that ends with the command.
    """
    if not server:
        raise NoServer("There is no PREFECT_API_URL.")
    if not environment.get(CAMPAIGN):
        raise NoCampaign(f"There is no {CAMPAIGN}.")


def read_config(file: Path = DEPLOYMENTS) -> dict[str, Any]:
    """Return prefect.yaml, each deployment with values of its own. Raises NoProject."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        entries: list[Entry] = config["deployments"]
        for entry in entries:
            full_name(entry)
    except OSError as error:
        raise NoProject(f"There is no {file} to read here: {type(error).__name__}.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise NoProject(f"{file} is not valid YAML at or before line {line}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise NoProject(
            f"{file} does not list deployments with name and entrypoint: {type(error).__name__}."
        ) from None
    # What anchors share would change for all when it is changed for one.
    return {**config, "deployments": [deepcopy(entry) for entry in entries]}


def parts(entry: Entry, name: str) -> list[dict[str, Any]]:
    """Return a list of a deployment, such as its schedules; empty if it has none."""
    return entry.get(name) or []


def full_name(entry: Entry) -> str:
    """Return a deployment's name with its flow's, as Prefect calls it."""
    flow = str(entry["entrypoint"]).rpartition(".")[2].replace("_", "-")
    return f"{flow}/{entry['name']}"
