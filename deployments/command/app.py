"""`nudgeflow`: set a project up, look whether it works, deploy, switch schedules, try it out.

Commands import what they need when they run: Prefect reads its settings when it is imported, which
takes two seconds, too.
"""

import os
import sys
from pathlib import Path
from typing import Literal

from cyclopts import App

from deployments.project import TEMPLATES, read_variables, require
from nudgescribe import __version__
from nudgescribe.errors import NudgeflowError


class NotNamed(NudgeflowError):
    """A command does not say what it is about."""

    advice = "Nothing was changed. Name deployments, such as refresh-monthly."


app = App(
    name="nudgeflow",
    version=__version__,
    help="Keep Nudgescribe campaigns fresh: set up a project, check it, deploy it, try it out.",
)


def main() -> None:
    """Run the command line; a problem that we know ends with its text, not with a traceback."""
    try:
        app()
    except NudgeflowError as error:
        sys.exit(str(error))


@app.command
def init() -> None:
    """Write a small project into the current folder: prefect.yaml, .env, and how to go on.

    What is there already stays as it is.
    """
    from deployments.command.init import write_project

    for line in write_project(Path()):
        print(line)
    print()
    print((TEMPLATES / "README.md").read_text(encoding="utf-8"), end="")


@app.command
def doctor() -> None:
    """Check what a refresh needs, and say what to do where something is missing.

    It signs in, finds the campaign, reads the first row of the customer list, writes and removes a
    file in the lake, and looks for server, deployments, pool and worker.
    """
    _load_variables()
    from deployments.command.doctor import examine, show

    if not show(examine(os.environ)):
        sys.exit(1)


@app.command
def bootstrap() -> None:
    """Set up the Prefect server: block types, blocks, the work pool, limits and automations.

    What to set up comes from .env and environment variables; run again, it updates what differs.
    """
    _check_project()
    from deployments import bootstrap as tool

    for line in tool.bootstrap(os.environ):
        print(line, flush=True)


@app.command
def deploy() -> None:
    """Deploy the flows of prefect.yaml; nothing is switched on by it, or off."""
    _check_project()
    from deployments import deploy as tool

    print("Deploying the flows of prefect.yaml, which takes a minute.", flush=True)
    for line in tool.deploy():
        print(line, flush=True)
    _print_switches()


@app.command
def schedule(state: Literal["on", "off"] | None = None, *names: str) -> None:
    """Switch schedules and triggers on or off; without arguments, show them.

    Parameters
    ----------
    state
        What to switch to.
    names
        Deployments as prefect.yaml calls them, such as refresh-monthly; at least one to switch.
    """
    _check_project()
    if state and not names:
        raise NotNamed(f"Nothing to switch {state} is named.")
    if state:
        from prefect.client.orchestration import get_client

        from deployments.project import read_config
        from deployments.schedules import switch

        with get_client(sync_client=True) as client:
            switch(client, read_config()["deployments"], names, on=state == "on")
    _print_switches()


@app.command
def up() -> None:
    """Run Prefect with its UI, a sandbox, a worker and the deployments until Ctrl-C."""
    from deployments.up import up as run

    run()


@app.command
def demo(
    *,
    lake: str = "lake",
    list_: str = "",
    segments: str = "",
    delimiter: str = "",
    encoding: str = "",
) -> None:
    """Refresh one campaign against a sandbox, and show what became of it.

    Parameters
    ----------
    lake
        Folder on this machine for the messages.
    list_
        A CSV of yours instead of the demo's CRM.
    segments
        Its columns to segment by: a,b.
    delimiter
        Its delimiter, if no usual one.
    encoding
        Its encoding, if not UTF-8.
    """
    from deployments.demo import demo as run

    run(lake, list_, segments, delimiter, encoding)


def _load_variables() -> None:
    os.environ.update(read_variables(os.environ))


def _check_project() -> None:
    _load_variables()
    from prefect.settings import get_current_settings

    from deployments.server import check_answer, open_client

    require(os.environ, get_current_settings().api.url)
    with open_client() as client:
        check_answer(client)


def _print_switches() -> None:
    from prefect.client.orchestration import get_client

    from deployments.project import read_config
    from deployments.schedules import read_switches

    with get_client(sync_client=True) as client:
        for each in read_switches(client, read_config()["deployments"]):
            print(f"{_STATES[each.on]:>12}  {each.name}")


_STATES = {True: "on", False: "off", None: "not deployed"}
