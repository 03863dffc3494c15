"""Keys of artifacts, and the link from a flow run to its campaign."""

import re

from prefect import task
from prefect.artifacts import create_link_artifact

from blocks import NudgescribeAccount
from tasks.policies import NEVER_CACHED


def artifact_key(name: str, campaign_id: str) -> str:
    """Prefect's keys hold lower-case letters, digits and dashes only."""
    return f"{name}-{re.sub('[^a-z0-9]+', '-', campaign_id.lower())}"


@task(**NEVER_CACHED, task_run_name="link {campaign_id}")
def link_campaign(account: NudgescribeAccount, campaign_id: str) -> None:
    """Shows the campaign's page among the flow run's artifacts, if the account says where it is."""
    if url := account.link_to(campaign_id):
        key = artifact_key("campaign", campaign_id)
        create_link_artifact(url, link_text="Open the campaign", key=key, description=campaign_id)
