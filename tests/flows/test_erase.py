"""Customers who are erased are nowhere afterwards, and do not come back."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks import DataLake, FileCrm
from blocks.storage.tombstones import ErasureKeyWrong
from flows.erase import erase_customers
from flows.export import export_messages
from flows.options import ExportOptions, RefreshOptions
from flows.plan import plan_refresh
from flows.refresh import campaign_refresh
from tasks.customers.guardrails import Guardrails
from tasks.erasure.report import ErasureResult
from tests.conftest import Company, Save, Saved, customers
from tests.support import decoding
from tests.support.deployed import changes, flow_run_of, retry, work
from tests.support.forks import run_in_fork

ERASED = [f"ERASE-ME-{number}" for number in range(6)]
NAME = "Xanthippe-"
REJECTED = ERASED[0]
HIDDEN = "env:NUDGEFLOW_TEST_ERASURE_KEY"


def listed(*, with_erased: bool = True) -> pl.DataFrame:
    """A list in which some are to be erased, and one of these breaks a rule."""
    frame = customers(60)
    if not with_erased:
        return frame.slice(len(ERASED))
    rows = range(len(ERASED))
    ids = pl.Series([*ERASED, *frame["customer_id"][len(ERASED) :]])
    names = pl.Series([f"{NAME}{row}" for row in rows] + [*frame["first_name"][len(ERASED) :]])
    frame = frame.with_columns(ids.alias("customer_id"), names.alias("first_name"))
    bad = pl.when(pl.col("customer_id") == REJECTED).then(pl.lit("many"))
    return frame.with_columns(bad.otherwise(pl.col("visits")).alias("visits"))


@dataclass
class Scenario:
    company: Company
    saved: Saved
    block: FileCrm
    file: Path

    @property
    def campaign(self) -> str:
        return self.company.seeded.campaign_id

    @property
    def lake(self) -> DataLake:
        return self.saved.lake

    def refresh(self, **options: Any) -> Any:
        given = RefreshOptions(guardrails=Guardrails(max_shrink=1), **options)
        return campaign_refresh(self.campaign, **self.saved.blocks, options=given)

    def parameters(self) -> dict[str, Any]:
        references = self.saved.references
        return {**references, "crm": self.block.to_reference()}

    def erase(self) -> Any:
        blocks = {"account": self.saved.account, "lake": self.lake, "crm": self.block}
        return erase_customers(**blocks, return_state=True)

    def export(self, **options: Any) -> Any:
        given = ExportOptions(**options)
        return export_messages(
            self.campaign, self.saved.account, self.lake, run="all", options=given
        )

    def save_lake(self, **fields: Any) -> None:
        """The lake's block with other fields than before."""
        before = {"root": str(self.saved.root), "erasure_key": HIDDEN}
        self.saved.lake = DataLake.model_validate({**before, **fields})
        self.saved.lake.save(self.saved.name, overwrite=True)

    def found(self) -> set[str]:
        """The files that hold an identifier or a name of those to erase."""
        return {
            path
            for path, value in decoding.values(self.saved.root)
            if NAME in value or any(id_ in value for id_ in ERASED)
        }

    def in_groups(self) -> set[str]:
        with self.company.client() as client:
            workspace = self.company.seeded.workspace_id
            return {
                id_
                for group in client.list_groups(workspace)
                for page in client.customer_ids(workspace, group.customer_group_id)
                for id_ in page
            }


@pytest.fixture
def scenario(
    reviewed_company: Company, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scenario:
    monkeypatch.setenv("NUDGEFLOW_TEST_ERASURE_KEY", "kept for good")
    monkeypatch.setenv("NUDGEFLOW_TEST_HOLDOUT_KEY", "holdout")
    saved = save(reviewed_company, listed())
    file = tmp_path / "erase.csv"
    pl.DataFrame({"customer_id": [*ERASED, "stranger"], "why": "asked"}).write_csv(file)
    block = FileCrm(path=str(file))
    block.save(f"{saved.name}-erase")
    scenario = Scenario(reviewed_company, saved, block, file)
    scenario.save_lake()
    return scenario


FORMATS = ["parquet", "csv", "csv.zst", "delta"]
HOLDOUT = {"share": 0.4, "key": "env:NUDGEFLOW_TEST_HOLDOUT_KEY"}


@pytest.mark.parametrize("file_format", FORMATS)
def test_erased_are_in_no_file_and_do_not_come_back(scenario: Scenario, file_format: str) -> None:
    scenario.save_lake(format=file_format)
    scenario.export()
    scenario.refresh(holdout=HOLDOUT)
    scenario.refresh()
    plan_refresh(scenario.campaign, **scenario.saved.blocks)
    kinds = {path.split("/")[0] for path in scenario.found()}
    assert kinds == {"messages", "quarantine", "holdouts", "segments", "sync_changes"}
    rows = scenario.lake.runs()["rows"].tolist()

    state = scenario.erase()
    assert state.is_completed(), state.message
    result: ErasureResult = state.result()
    assert scenario.found() == set()
    assert not scenario.in_groups() & {*ERASED}
    accepted = len(ERASED) - 1
    assert result.customers == len(ERASED) + 1
    assert (result.in_runs.runs, result.in_groups.groups) == (2, 2)
    assert result.in_runs.rows == result.in_groups.customers
    left = scenario.lake.runs()["rows"].tolist()
    assert left[0] == rows[0]
    assert left[2] == rows[2] - accepted
    for number, count in zip((1, 2, 3), left, strict=True):
        read = scenario.lake.read(scenario.campaign, number, "polars", verify=True)
        assert read.shape == (count, 2)
        assert scenario.lake.members(scenario.campaign, number).height == count

    scenario.export()
    assert scenario.lake.runs()["generation" if False else "rows"].tolist() == left
    scenario.export(rewrite=True)
    assert scenario.found() == set()
    assert scenario.lake.runs()["rows"].tolist() == left
    # The CRM has them still, but for the one who would be rejected.
    listed().filter(pl.col("customer_id") != REJECTED).write_csv(scenario.saved.crm_file)
    assert scenario.refresh().rows == left[2]
    assert scenario.found() == set()
    assert not scenario.in_groups() & {*ERASED}
