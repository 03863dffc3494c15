"""Labels of the flow run, which hooks and flows in other processes read."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.types import KeyValueLabels

LAKE = "nudgeflow.lake"
ACCOUNT = "nudgeflow.account"
RUN_NUMBER = "nudgeflow.run_number"
JOB_UID = "nudgeflow.job_uid"
REVIEW_UNTIL = "nudgeflow.review_until"


def add_labels(labels: KeyValueLabels) -> None:
    """Add labels to the running flow run."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(flow_run.id), labels)
