"""Tasks outside a flow run."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import pytest
from prefect.logging import disable_run_logger

from blocks import DataLake, NudgescribeAccount
from tasks.campaigns import CampaignRef
from tasks.customers.staging import Staged, describe
from tasks.customers.upload import GroupRef, create_group
from tasks.journal.refresh import Refresh
from tests.conftest import Company


@pytest.fixture(autouse=True)
def no_run() -> Iterator[None]:
    """There is no run to log to."""
    with disable_run_logger():
        yield


def new_refresh() -> Refresh:
    """A refresh that nobody has begun."""
    id_ = str(uuid4())
    started = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
    return Refresh(id=id_, started=started, journal=f"journals/tests/{id_}")


def forgotten(refresh: Refresh) -> Refresh:
    """The same refresh, of whose steps nothing was written down."""
    return refresh.model_copy(update={"journal": f"journals/tests/{uuid4()}"})


@pytest.fixture
def refresh() -> Refresh:
    return new_refresh()


@dataclass
class Local:
    """Blocks, and the artifacts tasks make of them: a Prefect server takes longer than all else."""

    account: NudgescribeAccount
    lake: DataLake
    folder: Path
    artifacts: dict[str, Any] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)

    def artifact(self, content: Any = None, *, key: str, description: str, table: Any = ()) -> UUID:
        self.artifacts[key] = content or table
        self.descriptions[key] = description
        return uuid4()

    def staged(self, frame: pl.DataFrame, name: str = "list") -> Staged:
        file = self.folder / f"{name}.parquet"
        frame.write_parquet(file)
        self.lake.files.put(file, f"staging/{name}.parquet")
        return describe(file, f"staging/{name}.parquet")


@pytest.fixture
def local(company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Local:
    local = Local(company.account(), DataLake(root=str(tmp_path / "lake")), tmp_path)
    local.account._block_document_name = "main"
    replaced: dict[str, Callable[..., Any]] = {
        "create_table_artifact": local.artifact,
        "create_markdown_artifact": local.artifact,
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("tasks."):
            for function, ours in replaced.items():
                if hasattr(module, function):
                    monkeypatch.setattr(module, function, ours)
    return local


Create = Callable[..., GroupRef]


@pytest.fixture
def create(company: Company, local: Local, refresh: Refresh) -> Create:
    """Creates the group of a refresh."""
    campaign = CampaignRef(
        campaign_id=company.seeded.campaign_id,
        name="Welcome back",
        workspace_id=company.seeded.workspace_id,
        previous_run=1,
        previous_group=company.seeded.customer_group_id,
        previous_pages=3,
    )

    def created(name: str, refresh: Refresh = refresh, reuse: bool = False) -> GroupRef:
        unknown = forgotten(refresh)
        return create_group.fn(local.account, campaign, name, local.lake, unknown, reuse)

    return created
