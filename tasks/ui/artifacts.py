"""Artifacts of a flow run: their keys, the link to its campaign, and progress."""

import re
import unicodedata
from contextlib import suppress
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from blocks import NudgescribeAccount
from tasks.policies import NEVER_CACHED
from tasks.ui.markdown import link, plain
from tasks.ui.signals import REPORT, add_labels

MOST_OF_NAME = 40


def artifact_key(kind: str, name: str, id_: str = "") -> str:
    """Return a key of lower-case letters, digits and dashes, as Prefect demands: with as much of
    the name as can be written so; with an id, no other thing of this name has the same.
    """
    readable = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub("[^a-z0-9]+", "-", readable).strip("-")[:MOST_OF_NAME].strip("-")
    unique = sha256(id_.encode()).hexdigest()[:8] if id_ else ""
    return "-".join(filter(None, (kind, slug, unique)))


@task(**NEVER_CACHED, task_run_name="link the campaign")
def link_campaign(account: NudgescribeAccount, campaign_id: str, name: str) -> None:
    """Link the campaign's page as an artifact, if the account knows the platform's address."""
    if url := account.link_to(campaign_id):
        key = artifact_key("campaign", name, campaign_id)
        create_link_artifact(url, link_text="Open the campaign", key=key, description=plain(name))


def show_page(page: str, key: str, description: str) -> str | None:
    """Show markdown as a page in Prefect's UI, note its address on the flow run, for notifications,
    and return it; None if nobody knows the address of the UI.
    """
    return _note(create_markdown_artifact(page, key=key, description=description))


def show_table(rows: list[dict[str, Any]], key: str, description: str) -> str | None:
    """Show a table in Prefect's UI, as `show_page` does a page."""
    return _note(create_table_artifact(rows, key=key, description=description))


def _note(artifact: object) -> str | None:
    assert isinstance(artifact, UUID)
    run = url_for("flow-run", obj_id=artifact)
    if run is None or not flow_run.id:
        return None
    url = run.replace(f"runs/flow-run/{artifact}", f"artifacts/artifact/{artifact}")
    with suppress(httpx.HTTPError):
        add_labels({REPORT: url})
    return url


def link_report(report: str | None, *told: str) -> None:
    """Log what a flow run has come to as its last line, with the address of its report."""
    where = f" Report: {report}" if report else ""
    get_run_logger().info("%s%s", " ".join(told), where)


def link_to_flow_run(text: str, flow_run_id: str) -> str:
    """Return a link to a flow run in Prefect's UI; the text alone if nobody knows its address."""
    url = url_for("flow-run", obj_id=flow_run_id)
    return link(text, url) if url else plain(text)


def start_progress(key: str, description: str) -> UUID:
    """Create a progress artifact at 0 %, and return its id."""
    artifact = create_progress_artifact(0.0, key=key, description=description)
    assert isinstance(artifact, UUID)
    return artifact


def update_progress(artifact: UUID, percentage: float, description: str) -> None:
    """Update a progress artifact; without Prefect's server the work goes on all the same."""
    with suppress(PrefectHTTPStatusError, httpx.TransportError):
        update_progress_artifact(artifact, percentage, description=description)
