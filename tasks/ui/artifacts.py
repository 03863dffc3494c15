"""Keys of artifacts, and the link from a flow run to its campaign."""

import re

from prefect import task
from prefect.artifacts import create_link_artifact

from blocks import NudgescribeAccount
from tasks.policies import NEVER_CACHED
from tasks.ui.markdown import plain


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
