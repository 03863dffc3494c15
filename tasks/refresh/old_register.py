"""The register of version 0.1, whose open refreshes are continued: read, and copied to a journal.

A campaign had numbered entries, of which the newest counts; what its refresh had done lay in its
staging folder.
"""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from blocks.storage.errors import NotInLake
from blocks.storage.files import Files
from blocks.storage.scratch import scratch_folder
from nudgescribe.bases import Frozen
from tasks.customers.staging import describe
from tasks.customers.validate import Validated
from tasks.journal.entries import Journal, JournalDamaged, Step, damage
from tasks.journal.owners import Owner
from tasks.journal.refresh import Claimed, Refresh
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.preview import Preview
from tasks.refresh.report import RefreshResult
from tasks.refresh.standing import Ended, Standing

M = TypeVar("M", bound=BaseModel)


class OldEntry(Frozen):
    """An entry as version 0.1 wrote it."""

    refresh: Refresh
    flow_run: str
    host: str
    pid: int
    open: bool = True
    problem: str | None = None
    result: RefreshResult | None = None

    @property
    def ended(self) -> Ended | None:
        """Return how the refresh ended; None if it is open."""
        if self.open:
            return None
        if self.result:
            return Ended(outcome="completed", result=self.result)
        return Ended(outcome="failed" if self.problem else "released", problem=self.problem or "")


def read(files: Files, path: str, number: int) -> Standing | None:
    """Return where the refresh of an entry stands; None if version 0.1 has just replaced it."""
    entry = _find(files, path, OldEntry)
    if entry is None:
        return None
    staging = entry.refresh.staging
    with damage(staging):
        kept, initiated = (files.exists(f"{staging}/{name}") for name in ("kept", "started.json"))
    return Standing(
        number=number,
        refresh=entry.refresh,
        owner=Owner(flow_run=entry.flow_run, host=entry.host, pid=entry.pid),
        kept=kept,
        initiated=initiated,
        ended=entry.ended,
    )


def copy(files: Files, standing: Standing, journal: Journal) -> None:
    """Write the journal of a refresh that version 0.1 has left open."""
    assert standing.owner
    staging = standing.refresh.staging
    validated = _find(files, f"{staging}/validated.json", Validated)
    compared = _find(files, f"{staging}/compared.json", Preview)
    checkpoint = _find(files, f"{staging}/started.json", Checkpoint)
    extracted = f"{staging}/extracted.parquet"
    if files.exists(extracted):
        with scratch_folder("the customer list") as folder:
            files.get(extracted, local := folder / "extracted.parquet")
            journal.create(Step.EXTRACTED, describe(local, extracted))
    if validated:
        journal.create(Step.VALIDATED, validated)
    if compared and standing.kept:
        journal.create(Step.COMPARED, compared)
    if checkpoint:
        journal.create(Step.INITIATED, checkpoint)
    journal.create(Step.CLAIMED, Claimed(refresh=standing.refresh, owner=standing.owner))


def _find(files: Files, path: str, kind: type[M]) -> M | None:
    try:
        with damage(path):
            content = files.read(path)
        return kind.model_validate_json(content)
    except NotInLake:
        return None
    except ValidationError:
        raise JournalDamaged.at(path) from None
