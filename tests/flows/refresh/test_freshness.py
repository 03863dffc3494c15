"""A list that is too old changes nothing; by option it is waited for."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flows.refresh
from blocks import FileCrm, SqlCrm
from blocks.crm import SourceError
from flows.customers import sync_customers
from flows.options import RefreshOptions, SyncOptions
from flows.plan import plan_refresh
from flows.refresh import campaign_refresh
from nudgescribe.errors import Retryable
from nudgescribe.retry import PollPolicy
from tasks.customers import freshness
from tasks.customers.freshness import AgeUnknown, MaxAge, StagedListStale, StaleList
from tasks.refresh.report import RefreshResult
from tests.conftest import Company, Save, Saved, customers
from tests.support.deployed import changes

LISTED = customers(60)
NOW = datetime.now(UTC)
FIELDS: dict[str, dict[str, str]] = {name: {} for name in LISTED.columns}


def refresh(company: Company, saved: Saved, **max_age: Any) -> RefreshResult:
    values = {
        "guardrails": {"max_shrink": 1},
        "max_age": {"hours": 24, **max_age},
        "fields": FIELDS,
    }
    result = campaign_refresh(
        company.seeded.campaign_id, **saved.blocks, options=RefreshOptions.model_validate(values)
    )
    assert isinstance(result, RefreshResult)
    return result


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def of_file(saved: Saved, folder: Path) -> Callable[[float], None]:
    """The list is as old as its oldest file."""
    for number in range(2):
        LISTED[30 * number : 30 * number + 30].write_csv(folder / f"part-{number}.csv")
    saved.crm = FileCrm(path=str(folder / "part-*.csv"))

    def written(hours: float) -> None:
        at = hours_ago(hours).timestamp()
        os.utime(folder / "part-1.csv", (at, at))

    return written


def of_query(saved: Saved, folder: Path) -> Callable[[float], None]:
    """A table says when the list was loaded."""
    database = folder / "crm.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE loads (kind TEXT, loaded_at TEXT)")
        columns = ", ".join(LISTED.columns)
        connection.execute(f"CREATE TABLE customers ({columns})")
        places = ", ".join("?" * LISTED.width)
        connection.executemany(f"INSERT INTO customers VALUES ({places})", LISTED.rows())
    saved.crm = SqlCrm(  # type: ignore[assignment]
        url=f"sqlite:///{database}",  # type: ignore[arg-type]
        query="SELECT * FROM customers WHERE plan <> :not_this",
        parameters={"not_this": "no such plan", "kind": "customers"},
        updated_query="SELECT max(loaded_at) FROM loads WHERE kind = :kind",
    )

    def loaded(hours: float) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            at = hours_ago(hours).isoformat()
            connection.execute("DELETE FROM loads")
            connection.execute("INSERT INTO loads VALUES ('customers', ?)", [at])

    return loaded


def of_column(saved: Saved, folder: Path) -> Callable[[float], None]:
    """The newest time in a column is the list's."""

    def written(hours: float) -> None:
        times = [None, " ", *(f"{hours_ago(hours + n):%Y-%m-%d %H:%M:%S}" for n in range(58))]
        LISTED.with_columns(pl.Series("seen", times)).write_csv(saved.crm_file)

    return written


KINDS = [of_file, of_query, of_column]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "POLL_POLICY", PollPolicy(0.01, 0.01))


@pytest.mark.parametrize("kind", KINDS)
def test_list_that_is_too_old_changes_nothing(
    reviewed_company: Company,
    save: Save,
    tmp_path: Path,
    kind: Callable[[Saved, Path], Callable[[float], None]],
) -> None:
    company, saved = reviewed_company, save(reviewed_company, LISTED)
    written = kind(saved, tmp_path)
    saved.crm.save(f"{saved.name}-aged", overwrite=True)
    column = {"column": "seen"} if kind is of_column else {}
    written(25)
    with pytest.raises(StaleList, match=r"is 25\.\d hours old, more than 24\.") as told:
        refresh(company, saved, **column)
    assert "Nothing was changed at Nudgescribe" in str(told.value)
    assert changes(company) == []
    columns = "outcome", "error", "extracted"
    assert saved.lake.sync_runs().select(columns).rows() == [("failed", "StaleList", None)]
    assert saved.lake.sync_runs()["problem"][0] == told.value.problem
    # The next one begins anew, and with a fresh list it goes through.
    written(23)
    assert refresh(company, saved, **column).accepted == 60


def test_fresh_list_is_waited_for(
    reviewed_company: Company,
    save: Save,
    tmp_path: Path,
    often: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    company, saved = reviewed_company, save(reviewed_company, LISTED)
    written = of_column(saved, tmp_path)
    written(25)
    extract, extracted = FileCrm.extract, 0

    def extract_and_load(self: FileCrm, *args: Any) -> int:
        """Somebody loads the list while it is waited for."""
        nonlocal extracted
        extracted += 1
        rows = extract(self, *args)
        if extracted == 2:
            written(1)
        return rows

    monkeypatch.setattr(FileCrm, "extract", extract_and_load)
    assert refresh(company, saved, column="seen", wait_minutes=5).accepted == 60
    assert extracted == 3


def test_wait_ends(company: Company, save: Save, tmp_path: Path, often: None) -> None:
    saved = save(company, LISTED)
    of_column(saved, tmp_path)(25)
    with pytest.raises(StaleList, match="hours old"):
        refresh(company, saved, column="seen", wait_minutes=0.001)
    assert changes(company) == []


def test_plan_and_synchronisation_refuse_an_old_list(company: Company, save: Save) -> None:
    saved, seeded = save(company, LISTED), company.seeded
    at = hours_ago(2).timestamp()
    os.utime(saved.crm_file, (at, at))
    max_age = MaxAge(hours=1)
    of_plan, of_sync = RefreshOptions(max_age=max_age), SyncOptions(max_age=max_age)
    with pytest.raises(StaleList):
        plan_refresh(seeded.campaign_id, **saved.blocks, options=of_plan)
    with pytest.raises(StaleList):
        sync_customers(seeded.workspace_id, "Synced", **saved.blocks, options=of_sync)
    assert {*saved.lake.sync_runs()["error"]} == {"StaleList"}
    assert company.groups() == ["First customers"]


def test_list_of_unknown_age_is_refused(
    company: Company, save: Save, tmp_path: Path, often: None
) -> None:
    saved = save(company, LISTED)
    loaded = of_query(saved, tmp_path)
    crm = saved.crm
    assert isinstance(crm, SqlCrm)

    def told(error: type[Exception], text: str, query: str | None, **more: Any) -> None:
        saved.crm = crm.model_copy(update={"updated_query": query})
        saved.crm.save(f"{saved.name}-aged", overwrite=True)
        with pytest.raises(error, match=text) as raised:
            refresh(company, saved, wait_minutes=60, **more)
        assert "student" not in str(raised.value)

    told(AgeUnknown, "does not tell when its list", None)
    told(AgeUnknown, "does not tell when its list", "SELECT max(loaded_at) FROM loads")
    loaded(1)
    told(SourceError, "returns not just one value", "SELECT kind, loaded_at FROM loads")
    told(SourceError, "returns not just one value", "SELECT kind FROM loads WHERE kind = 'x'")
    told(SourceError, "is no time in ISO 8601", "SELECT 'student'")
    told(AgeUnknown, "column plan of .* is no time in ISO 8601", None, column="plan")
    assert changes(company) == []


def test_list_of_the_future_is_refused(company: Company, save: Save, tmp_path: Path) -> None:
    """A local time without its offset, or the day on which something ends, tells no age."""
    saved = save(company, LISTED)
    of_column(saved, tmp_path)(-2)
    with pytest.raises(AgeUnknown, match=r"is \d\.\d hours in the future: it may be a local time"):
        refresh(company, saved, column="seen", wait_minutes=60)
    assert changes(company) == []
    MaxAge(hours=1).check("clocks differ", hours_ago(-0.1))


@pytest.mark.parametrize("hours", [1e30, float("inf")])
def test_any_number_of_hours_can_be_compared(hours: float) -> None:
    MaxAge(hours=hours).check("a list", hours_ago(1))


class OwnSource(FileCrm):
    """A package's source, which tells its time in its own way."""

    _block_type_name = "Own source that tells its time"
    told: str = "naive"

    def updated_at(self) -> datetime:
        if self.told == "error":
            raise ValueError("student")
        return hours_ago(2).replace(tzinfo=None)


def test_time_that_a_packages_source_tells(company: Company, save: Save) -> None:
    saved = save(company, LISTED)

    def refuse(told: str, error: type[Exception], text: str) -> None:
        saved.crm = OwnSource(path=str(saved.crm_file), told=told)
        saved.crm.save(f"{saved.name}-{told}")
        with pytest.raises(error, match=text) as raised:
            refresh(company, saved, hours=1)
        assert "student" not in str(raised.value)

    refuse("naive", StaleList, r"is \d\.\d hours old")
    refuse("error", SourceError, "cannot be read: ValueError in test_freshness.py")
    assert changes(company) == []


def test_refresh_that_goes_on_does_not_use_a_list_that_has_grown_old(
    reviewed_company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    company, saved = reviewed_company, save(reviewed_company, LISTED)

    def away(*_: object) -> None:
        raise Retryable("The service does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(flows.refresh, "create_group", away)
        with pytest.raises(Retryable):
            refresh(company, saved)
    # The file is fresh, but this refresh has extracted it before.
    with pytest.raises(StagedListStale, match=r"was extracted 0\.0 hours ago, more than 1e-06"):
        refresh(company, saved, hours=1e-6)
    assert changes(company) == []
    assert refresh(company, saved).accepted == 60
