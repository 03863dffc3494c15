"""Artifacts of a flow run: their keys, the link to its campaign, and progress."""

import re
from contextlib import suppress
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.urls import url_for

from blocks import NudgescribeAccount
from tasks.policies import NEVER_CACHED
from tasks.ui.markdown import link, plain


def artifact_key(name: str, campaign_id: str) -> str:
    """Return a key of lower-case letters, digits and dashes, as Prefect demands."""
    return f"{name}-{re.sub('[^a-z0-9]+', '-', campaign_id.lower())}"


@task(**NEVER_CACHED, task_run_name="link {campaign_id}")
def link_campaign(account: NudgescribeAccount, campaign_id: str) -> None:
    """Link the campaign's page as an artifact, if the account knows the platform's address."""
    if url := account.link_to(campaign_id):
        key = artifact_key("campaign", campaign_id)
        create_link_artifact(
            url, link_text="Open the campaign", key=key, description=plain(campaign_id)
        )


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
