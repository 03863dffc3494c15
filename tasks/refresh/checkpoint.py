"""The checkpoint of a refresh whose rerun has been initiated: retries continue from there."""

from prefect import task

from blocks import DataLake
from nudgescribe.bases import Frozen
from tasks.campaigns import CampaignRef, Refresh, RunRef
from tasks.customers.staging import folder_of
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.policies import READ
from tasks.refresh.preview import Preview


class Checkpoint(Frozen):
    """The initiated run, and what led to it; `expected` is how the list compares with the previous
    run.
    """

    campaign: CampaignRef
    validated: Validated
    expected: Preview
    group: GroupRef
    run: RunRef


@task(**READ)
def load_checkpoint(lake: DataLake, refresh: Refresh) -> Checkpoint | None:
    """Return the checkpoint that an earlier try of the refresh has saved, if there is one."""
    files = lake.files
    if not files.exists(_path(refresh)):
        return None
    return Checkpoint.model_validate_json(files.read(_path(refresh)))


@task(**READ)
def save_checkpoint(lake: DataLake, refresh: Refresh, checkpoint: Checkpoint) -> None:
    """Save the checkpoint in staging, for every later try of the refresh to continue from."""
    content = checkpoint.model_dump_json().encode()
    lake.files.write(_path(refresh), content, private=True)


def _path(refresh: Refresh) -> str:
    # The name that version 0.1 has given it.
    return f"{folder_of(refresh)}/started.json"
