"""What a refresh has started, noted in staging: from there on nothing before it is done again."""

from prefect import task
from pydantic import BaseModel, ConfigDict

from blocks import DataLake
from tasks.campaigns import CampaignRef, Refresh, RunRef
from tasks.customers.staging import folder_of
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.policies import READ
from tasks.refresh.preview import Preview


class Started(BaseModel):
    """A rerun with all that led to it; how the list compares is what we `expected`."""

    model_config = ConfigDict(frozen=True)

    campaign: CampaignRef
    validated: Validated
    expected: Preview
    group: GroupRef
    run: RunRef


@task(**READ)
def find_started(lake: DataLake, refresh: Refresh) -> Started | None:
    """What an earlier try of the refresh has started, if one got that far."""
    files = lake.files
    if not files.exists(_note(refresh)):
        return None
    return Started.model_validate_json(files.read(_note(refresh)))


@task(**READ)
def note_started(lake: DataLake, refresh: Refresh, started: Started) -> None:
    """Has every later try of the refresh go on from here."""
    content = started.model_dump_json().encode()
    lake.files.write(_note(refresh), content, private=True)


def _note(refresh: Refresh) -> str:
    return f"{folder_of(refresh)}/started.json"
