"""Customers who must not be written to: taken out of the list, and looked at again."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from prefect.client.schemas.objects import State
from prefect.flow_runs import resume_flow_run

import flows.refresh
from blocks import FileCrm
from blocks.storage.manifest import campaign_partition
from flows.customers import sync_customers
from flows.options import RefreshOptions, SyncOptions
from flows.plan import plan_refresh
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from flows.run import finish
from nudgescribe import contract
from nudgescribe.contract import Status
from nudgescribe.errors import Retryable
from tasks.customers import second_look
from tasks.customers.guardrails import ListGuardrails
from tasks.customers.second_look import SuppressionDiffers
from tasks.customers.suppression import SuppressionEmpty, SuppressionUnreadable
from tasks.export.download import ExportRef
from tasks.export.run import ExportIncomplete
from tasks.refresh.history import History
from tasks.refresh.plan import Plan
from tasks.refresh.reconcile import SuppressedInExport
from tasks.refresh.report import RefreshResult
from tasks.ui.artifacts import artifact_key
from tests.conftest import Company, Save, Saved, Through, customers
from tests.support.artifacts import all_artifacts
from tests.support.deployed import Deployed, changes, deployed, state_of
from tests.support.response_tamperer import ResponseTamperer

__all__ = ["deployed"]

LISTED = customers(120)
FIRST, JOINED = [*LISTED["customer_id"][:7]], [*LISTED["customer_id"][7:10]]
STRANGER = "nobody of the list"


@dataclass
class Scenario:
    """A company's blocks, and the file of those who must not be written to."""

    company: Company
    saved: Saved
    block: FileCrm
    file: Path

    def suppress(self, ids: list[str], column: str = "customer_id") -> None:
        pl.DataFrame({column: ids, "since": [None] * len(ids)}).write_csv(self.file)

    def options(self, **more: Any) -> RefreshOptions:
        values = {"guardrails": {"max_shrink": 1}, "suppress": self.block, **more}
        return RefreshOptions.model_validate(values)

    def refresh(self, **options: Any) -> Any:
        campaign = self.company.seeded.campaign_id
        return campaign_refresh(campaign, **self.saved.blocks, options=self.options(**options))

    def stop_at_review(self) -> None:
        """A refresh whose run is approved since."""
        state = campaign_refresh(
            self.company.seeded.campaign_id,
            **self.saved.blocks,
            options=self.options(review="stop"),
            return_state=True,
        )
        assert state.name == "Stopped", state.message
        self.company.sandbox.approve(self.company.seeded.campaign_id).raise_for_status()

    def publish(self) -> Any:
        return publish_campaign(
            self.company.seeded.campaign_id,
            self.saved.account,
            self.saved.lake,
            return_state=True,
        )

    def in_lake(self) -> set[str]:
        read = self.saved.lake.read(self.company.seeded.campaign_id, 2, "polars")
        assert isinstance(read, pl.DataFrame)
        return {*read["customer_id"]}

    def told(self) -> tuple[dict[str, Any], dict[str, set[str]]]:
        """The newest row of `sync_runs`, and whom it has changed, by kind."""
        campaign = self.company.seeded.campaign_id
        row = self.saved.lake.sync_runs(campaign).row(-1, named=True)
        changed = self.saved.lake.sync_changes(campaign)
        assert not changed.is_duplicated().any()
        mine = changed.filter(pl.col("run_id") == row["run_id"])
        kinds = mine.group_by("change").agg("customer_id").rows()
        return row, {str(change): {*ids} for change, ids in kinds}

    def is_published(self) -> bool:
        return self.company.history()[0].status == Status.PUBLISHED

    def in_group(self) -> set[str]:
        group = self.company.history()[0].customer_group_id
        assert group
        with self.company.client() as client:
            pages = client.customer_ids(self.company.seeded.workspace_id, group)
            return {id_ for page in pages for id_ in page}


@pytest.fixture
def scenario(company: Company, save: Save, tmp_path: Path) -> Scenario:
    saved = save(company, LISTED)
    block = FileCrm(path=str(tmp_path / "suppressed.csv"))
    block.save(f"{saved.name}-suppressed")
    scenario = Scenario(company, saved, block, tmp_path / "suppressed.csv")
    scenario.suppress([*FIRST, STRANGER])
    return scenario


def test_suppressed_are_left_out_of_plan_group_and_lake(scenario: Scenario) -> None:
    campaign = scenario.company.seeded.campaign_id
    plan = plan_refresh(campaign, **scenario.saved.blocks, options=scenario.options())
    assert isinstance(plan, Plan)
    assert (plan.accepted, plan.rejected, plan.suppressed) == (113, 0, 7)
    row, changed = scenario.told()
    assert (row["flow"], row["suppressed"], row["held_out"]) == ("plan-refresh", 7, None)
    assert changed == {"suppressed": {*FIRST}}
    state = campaign_refresh(
        campaign,
        **scenario.saved.blocks,
        options=scenario.options(review="stop", plan_id=plan.plan_id),
        return_state=True,
    )
    assert state.name == "Stopped", state.message
    scenario.company.sandbox.approve(campaign).raise_for_status()
    result: RefreshResult = scenario.publish().result()
    assert (result.extracted, result.accepted, result.suppressed) == (120, 113, 7)
    assert result.suppressed_since == result.erased == 0
    row, changed = scenario.told()
    assert (row["outcome"], row["suppressed"], row["suppressed_since"]) == ("completed", 7, 0)
    assert changed["suppressed"] == {*FIRST}
    assert "suppressed_since" not in changed
    assert scenario.in_lake() == {*LISTED["customer_id"]} - {*FIRST}
    key = artifact_key("refresh", "Welcome back", campaign)
    pages = [str(one.data) for one in all_artifacts() if one.key == key]
    assert "| suppressed, not uploaded | 7 |" in pages[0]
    assert "since" not in pages[0].partition("What came in")[2].partition("##")[0]


Publish = Callable[[Scenario, Deployed], RefreshResult]


def by_publish_campaign(scenario: Scenario, deployed: Deployed) -> RefreshResult:
    scenario.stop_at_review()
    scenario.suppress([*FIRST, *JOINED])
    return scenario.publish().result()


def by_next_refresh(scenario: Scenario, deployed: Deployed) -> RefreshResult:
    scenario.stop_at_review()
    scenario.suppress([*FIRST, *JOINED])
    return scenario.refresh()


def resumed(scenario: Scenario, deployed: Deployed) -> RefreshResult:
    """As `resume-reviewed` starts it, by the parameters that Prefect stores."""
    reference = scenario.block.to_reference()
    run = deployed.refresh(scenario.company, scenario.saved, review="suspend", suppress=reference)
    assert deployed.work(run).name == "Suspended", state_of(run).message
    scenario.suppress([*FIRST, *JOINED])
    scenario.company.sandbox.approve(scenario.company.seeded.campaign_id).raise_for_status()
    resume_flow_run(run, run_input={})
    assert deployed.work(run).name == "Completed", state_of(run).message
    partition = campaign_partition(scenario.company.seeded.campaign_id)
    result = History(scenario.saved.lake.files, partition).last_result()
    assert result
    return result


@pytest.mark.parametrize("publish", [by_publish_campaign, by_next_refresh, resumed])
def test_those_who_join_during_the_review_get_no_message(
    scenario: Scenario, deployed: Deployed, publish: Publish
) -> None:
    result = publish(scenario, deployed)
    assert (result.suppressed, result.suppressed_since, result.erased) == (7, 3, 0)
    left = {*LISTED["customer_id"]} - {*FIRST, *JOINED}
    assert scenario.in_lake() == scenario.in_group() == left
    pages = [str(one.data) for one in all_artifacts() if (one.key or "").startswith("refresh-")]
    mine = next(page for page in pages if result.path in page)
    assert "| suppressed since, deleted from the group | 3 |" in mine
    row, changed = scenario.told()
    assert (row["outcome"], row["suppressed"], row["suppressed_since"]) == ("completed", 7, 3)
    assert (changed["suppressed"], changed["suppressed_since"]) == ({*FIRST}, {*JOINED})
    review = artifact_key("review", "Welcome back", scenario.company.seeded.campaign_id)
    shown = [str(one.data) for one in all_artifacts() if one.key == review]
    assert len(shown) == (publish is resumed)
    assert all("| customers suppressed, not in the list | 7 |" in page for page in shown)


def test_published_by_others_is_too_late(scenario: Scenario) -> None:
    scenario.stop_at_review()
    with scenario.company.client() as client:
        client.publish(scenario.company.seeded.campaign_id)
    scenario.suppress([*FIRST, *JOINED])
    for _ in range(2):
        state = scenario.publish()
        assert state.name == "SuppressedTooLate"
        assert "3 customers who must not be written to are in run 2, which is" in state.message
        row, changed = scenario.told()
        assert (row["outcome"], row["error"]) == ("failed", "SuppressedTooLate")
        assert (row["suppressed"], row["suppressed_since"]) == (7, None)
        assert changed == {"suppressed": {*FIRST}}
    assert scenario.in_group() >= {*JOINED}
    assert scenario.saved.lake.manifest(scenario.company.seeded.campaign_id, 2) is None
    # Without new ones in the run it goes on.
    scenario.suppress(FIRST)
    assert scenario.publish().result().suppressed_since == 0
    assert scenario.told()[0]["outcome"] == "completed"


def test_repeated_publication_leaves_out_who_has_joined_since(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.stop_at_review()

    def killed(*_: object) -> ExportRef:
        raise ExportIncomplete("The export shows 0 pages after 1 minutes.")

    with monkeypatch.context() as patched:
        patched.setattr(finish, "fetch_run", killed)
        with pytest.raises(ExportIncomplete):
            scenario.publish().result()
    assert scenario.is_published()
    scenario.suppress([*FIRST, *JOINED])
    result = scenario.publish().result()
    assert (result.suppressed_since, result.erased) == (3, 0)
    assert scenario.in_lake() == scenario.in_group() == {*LISTED["customer_id"][10:]}


def test_run_that_is_in_the_lake_when_it_is_killed_is_looked_at_there(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.stop_at_review()
    scenario.suppress([*FIRST, *JOINED])

    def killed(*_: object) -> object:
        raise ExportIncomplete("It is killed.")

    with monkeypatch.context() as patched:
        patched.setattr(finish, "save_committed", killed)
        with pytest.raises(ExportIncomplete):
            scenario.publish().result()
    result = scenario.publish().result()
    assert (result.suppressed_since, result.erased) == (3, 0)
    assert scenario.in_lake() == {*LISTED["customer_id"][10:]}


class Keeping(ResponseTamperer):
    """A service that lets no customer go: it refuses to, or says that it has."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE" and request.url.path == contract.CUSTOMERS:
            return httpx.Response(self._status, json={"deleted": 3})
        return super().handle_request(request)


@pytest.mark.parametrize("status", [200, 400])
def test_what_the_service_has_fixed_is_not_published(
    scenario: Scenario, through: Through, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.stop_at_review()
    scenario.suppress([*FIRST, *JOINED])
    with monkeypatch.context():
        through(Keeping(status))
        state = scenario.publish()
    assert state.name == "SuppressedTooLate"
    for id_ in JOINED:
        assert id_ not in state.message
    assert not scenario.is_published()
    monkeypatch.undo()
    # Another try finds them again, whatever the first has noted.
    assert scenario.publish().result().suppressed_since == 3
    assert not scenario.in_lake() & {*JOINED}


def test_export_is_proved_not_to_hold_them(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.stop_at_review()
    scenario.suppress([*FIRST, *JOINED])

    def hidden(*_: object) -> Iterator[pl.DataFrame]:
        return iter(())

    with monkeypatch.context() as patched:
        patched.setattr(second_look, "held_ids", hidden)
        with pytest.raises(SuppressedInExport, match="messages for 3 customers who must not be"):
            scenario.publish().result()
    assert scenario.saved.lake.manifest(scenario.company.seeded.campaign_id, 2) is None
    assert scenario.publish().result().suppressed_since == 3
    assert not scenario.in_lake() & {*JOINED}


def unreadable(scenario: Scenario) -> None:
    scenario.file.unlink()


def empty(scenario: Scenario) -> None:
    scenario.suppress([])


def blank(scenario: Scenario) -> None:
    scenario.suppress([" ", ""])


def without_column(scenario: Scenario) -> None:
    scenario.suppress(FIRST, "id")


BROKEN = [unreadable, empty, blank, without_column]


@pytest.mark.parametrize("breaks", BROKEN)
def test_suppression_that_cannot_be_read_stops_before_anything_is_changed(
    scenario: Scenario, breaks: Callable[[Scenario], None]
) -> None:
    breaks(scenario)
    kind = SuppressionEmpty if breaks in (empty, blank) else SuppressionUnreadable
    with pytest.raises(kind, match=scenario.block.block_slug) as told:
        scenario.refresh()
    assert "Nothing was published" in str(told.value)
    assert changes(scenario.company) == []
    row, changed = scenario.told()
    assert (row["outcome"], row["error"], changed) == ("failed", kind.__name__, {})


@pytest.mark.parametrize("breaks", BROKEN)
def test_suppression_that_cannot_be_read_again_stops_the_publication(
    scenario: Scenario, breaks: Callable[[Scenario], None]
) -> None:
    scenario.stop_at_review()
    breaks(scenario)
    with pytest.raises(SuppressionUnreadable, match=scenario.block.block_slug):
        scenario.publish().result()
    assert not scenario.is_published()
    scenario.suppress(FIRST)
    assert scenario.publish().result().accepted == 113


def test_open_refresh_keeps_to_the_suppression_it_was_begun_with(
    scenario: Scenario, tmp_path: Path
) -> None:
    scenario.stop_at_review()
    other = FileCrm(path=str(tmp_path / "other.csv"))
    other.save(f"{scenario.saved.name}-other")
    with pytest.raises(SuppressionDiffers, match="begun with another suppression list"):
        scenario.refresh(suppress=other)
    assert not scenario.is_published()
    assert scenario.refresh(suppress=None).suppressed == 7


def test_refresh_begun_without_suppression_changes_nothing_for_one_that_has_it(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Retryable("The service does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(flows.refresh, "create_group", away)
        with pytest.raises(Retryable):
            scenario.refresh(suppress=None)
    with pytest.raises(SuppressionDiffers, match="begun with no suppression list"):
        scenario.refresh()
    assert changes(scenario.company) == []
    # The next one begins anew, with its own list.
    scenario.stop_at_review()
    assert scenario.in_group() == {*LISTED["customer_id"]} - {*FIRST}


def test_changed_suppression_is_no_unchanged_list(
    reviewed_company: Company,
    save: Save,
    tmp_path: Path,
) -> None:
    saved = save(reviewed_company, LISTED)
    block = FileCrm(path=str(tmp_path / "suppressed.csv"))
    block.save(f"{saved.name}-suppressed")
    scenario = Scenario(reviewed_company, saved, block, tmp_path / "suppressed.csv")
    scenario.suppress(FIRST)
    first = scenario.refresh()
    scenario.suppress([*FIRST, STRANGER])
    assert scenario.refresh(if_unchanged="skip") == first
    scenario.suppress([*FIRST, *JOINED])
    assert scenario.refresh(if_unchanged="skip").accepted == 110


def test_suppressed_are_no_rejected_rows(scenario: Scenario) -> None:
    options = SyncOptions(suppress=scenario.block, guardrails=ListGuardrails(max_rejected=0))
    seeded = scenario.company.seeded
    group = "Everybody whom we may write to"
    diff = sync_customers(seeded.workspace_id, group, **scenario.saved.blocks, options=options)
    assert not isinstance(diff, State)
    assert diff.added == 113
    scenario.suppress([*FIRST, *JOINED])
    diff = sync_customers(seeded.workspace_id, group, **scenario.saved.blocks, options=options)
    assert not isinstance(diff, State)
    assert (diff.removed, diff.unchanged) == (3, 110)


def test_no_identifier_is_noted_outside_the_lists(scenario: Scenario) -> None:
    scenario.stop_at_review()
    scenario.suppress([*FIRST, *JOINED])
    result: RefreshResult = scenario.publish().result()
    journal = "".join(path.read_text() for path in scenario.saved.root.glob("refreshes/**/*.json"))
    assert json.dumps(scenario.block.to_reference()["$ref"]["block_document_id"]) in journal
    for id_ in [*FIRST, *JOINED]:
        assert id_ not in journal + result.model_dump_json()
    assert [*scenario.saved.root.glob("staging/*")] == []
