"""Our judgement of a list, and the service's of what came of it."""

from datetime import date
from functools import partial
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import WorkspaceField
from tasks.campaigns import Refresh
from tasks.customers.mapping import FieldMapping, FieldSource
from tasks.customers.staging import keep_staged, release_staged
from tasks.customers.validate import BrokenRule, ListRefused, Validated, validate_customers
from tests.conftest import Company, customers
from tests.tasks.conftest import Local
from tests.tasks.customers.test_mapping import rule

PARTITION = "campaign_id=C"
ANYTHING = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.sampled_from(["29/02/2023", "29/02/2024", "1.234", "-0.5", "1e5", " ", "é", "e\u0301"]),
)
CUSTOMERS = st.fixed_dictionaries(dict.fromkeys(customers(1).columns[1:], ANYTHING))


@pytest.fixture
def rules(company: Company, client: NudgescribeClient) -> list[WorkspaceField]:
    return client.list_fields(company.seeded.workspace_id)


def validate(
    local: Local,
    rules: list[WorkspaceField],
    refresh: Refresh,
    listed: pl.DataFrame,
    *,
    sources: dict[str, FieldSource] | None = None,
    strict: bool = False,
) -> Validated:
    staged = local.staged(listed)
    mapping = FieldMapping(rules=rules, sources=sources or {})
    return validate_customers.fn(mapping, staged, local.lake, refresh, strict, PARTITION)


@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(customers(1).columns[1:], ANYTHING)), max_size=9)
)
def test_validation_agrees_with_service_row_by_row(
    company: Company,
    client: NudgescribeClient,
    local: Local,
    rules: list[WorkspaceField],
    rows: list[dict[str, str | None]],
) -> None:
    schema = dict.fromkeys(customers(1).columns, pl.String)
    hostile = [{"customer_id": f"h{number}", **row} for number, row in enumerate(rows)]
    listed = pl.concat([pl.DataFrame(hostile, schema), customers(6, invalid_every=3)])
    refresh = Refresh.model_validate({"id": str(uuid4()), "started": "2026-11-21T06:30:00Z"})
    validated = validate(local, rules, refresh, listed)
    accepted = pl.read_parquet(local.lake.files.fs_path(validated.accepted.path))
    errors = pl.DataFrame(schema={"row": pl.UInt32, "field": pl.String, "code": pl.String})
    if validated.quarantine:
        errors = pl.read_parquet(local.lake.files.fs_path(validated.quarantine)).drop("reason")
    check = partial(
        client.upload_customers,
        company.seeded.workspace_id,
        company.seeded.customer_group_id,
        validate_only=True,
    )
    good = check(rfc4180.write(accepted))
    assert (good.accepted, good.rejected) == (accepted.height, 0)
    bad_rows = errors["row"].unique().sort()
    bad = check(rfc4180.write(listed[bad_rows.cast(pl.Int64) - 1]))
    assert (bad.accepted, bad.rejected) == (0, len(bad_rows)) == (0, validated.rejected)
    said = [(bad_rows[error.row - 1], error.field, error.code) for error in bad.errors]
    assert sorted(said) == sorted(errors.rows())
    assert validated.extracted == listed.height == accepted.height + validated.rejected


def test_validation_reports_rules_without_values(
    local: Local, rules: list[WorkspaceField], refresh: Refresh
) -> None:
    listed = customers(100, invalid_every=30).with_columns(
        plan=pl.when(pl.int_range(pl.len()) == 4).then(pl.lit("")).otherwise("plan")
    )
    validated = validate(local, rules, refresh, listed)
    assert validated.quarantine == f"quarantine/{PARTITION}/{refresh.id}.parquet"
    quarantine = pl.read_parquet(local.lake.files.fs_path(validated.quarantine))
    assert quarantine.columns == ["row", "field", "code", "reason"]
    assert quarantine["row"].to_list() == [5, 30, 60, 90]
    assert quarantine.row(0) == (5, "plan", "required", "a value is required")
    (row,) = (row for row in local.artifacts["rejected-customers"] if row["field"] == "plan")
    assert row == {
        "field": "plan",
        "code": "required",
        "reason": "a value is required",
        "rows": 1,
        "first row": 5,
    }
    by_rule = quarantine.group_by("field", "code").len("rows").sort("field", "code")
    assert validated.broken_rules == [BrokenRule(**each) for each in by_rule.rows(named=True)]
    assert BrokenRule(field="plan", code="required", rows=1) in validated.broken_rules


def test_validation_numbers_rows_through_whole_list(
    local: Local, rules: list[WorkspaceField], refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.customers.validate.ROWS_JUDGED", 7)
    listed = pl.concat([customers(60, invalid_every=20), customers(2)])
    with pytest.raises(ListRefused, match="2 customer identifiers occur more than once"):
        validate(local, rules, refresh, listed)
    quarantine = f"quarantine/{PARTITION}/{refresh.id}.parquet"
    found = pl.read_parquet(local.lake.files.fs_path(quarantine))
    assert found["row"].to_list() == [1, 2, 20, 40, 60, 61, 62]


def test_staged_and_quarantined_files_are_private(
    local: Local, rules: list[WorkspaceField], refresh: Refresh
) -> None:
    validate(local, rules, refresh, customers(20, invalid_every=5))
    root = Path(local.lake.root)
    private = [*root.glob(f"staging/{refresh.id}/*"), *root.glob("quarantine/*/*")]
    assert len(private) == 3
    assert {file.stat().st_mode & 0o777 for file in private} == {0o600}


def test_strict_list_is_refused_at_first_rejected_row(
    local: Local, rules: list[WorkspaceField], refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.customers.validate.ROWS_JUDGED", 7)
    with pytest.raises(ListRefused, match=r"^Row 30, field '\w+': [a-z ']+\. Nothing was changed"):
        validate(local, rules, refresh, customers(100, invalid_every=30), strict=True)
    assert not local.lake.files.exists("quarantine")
    assert validate(local, rules, refresh, customers(29), strict=True).rejected == 0


def test_validation_returns_first_outcome_when_retried(
    local: Local, rules: list[WorkspaceField], refresh: Refresh
) -> None:
    first = validate(local, rules, refresh, customers(20))
    assert validate(local, [], refresh, customers(30)) == first


def test_fingerprint_ignores_order_of_rows(
    local: Local, rules: list[WorkspaceField], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.customers.validate.ROWS_JUDGED", 20)

    def fingerprint(listed: pl.DataFrame) -> str:
        refresh = Refresh.model_validate({"id": "r", "started": "2026-11-21T06:30:00Z"})
        local.lake.files.remove("staging")
        return validate(local, rules, refresh, listed).fingerprint

    listed = customers(50)
    other = pl.when(pl.col("customer_id") == "000007").then(pl.lit("x")).otherwise("last_name")
    assert fingerprint(listed.reverse().select(reversed(listed.columns))) == fingerprint(listed)
    assert fingerprint(listed.with_columns(last_name=other)) != fingerprint(listed)
    assert fingerprint(listed.head(49)) != fingerprint(listed)
    swapped = listed.rename({"first_name": "last_name", "last_name": "first_name"})
    assert fingerprint(swapped) != fingerprint(listed)
    without = listed.drop("last_name").with_columns(grade=pl.lit(None, pl.String))
    assert fingerprint(without) != fingerprint(without.rename({"grade": "last_name"}))
    assert fingerprint(listed.clear()) == fingerprint(listed.clear())


def test_repeated_identifiers_are_found_as_sent(local: Local, refresh: Refresh) -> None:
    key = rule("born", "Date", "dd.MM.yyyy").model_copy(update={"unique": True})
    listed = pl.DataFrame({"born": [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 2)]})
    with pytest.raises(ListRefused, match="1 customer identifiers occur more than once"):
        validate(local, [key], refresh, listed)
    table = local.artifacts["rejected-customers"]
    assert [(row["code"], row["rows"]) for row in table] == [("duplicate", 2)]


def test_list_is_refused_when_columns_hold_no_text(
    local: Local, rules: list[WorkspaceField], refresh: Refresh
) -> None:
    listed = customers(3).with_columns(last_name=pl.lit(b"x"))
    with pytest.raises(ListRefused, match="column 'last_name' holds Binary, not text"):
        validate(local, rules, refresh, listed)


def test_list_without_header_row_is_not_quoted(
    local: Local, rules: list[WorkspaceField], refresh: Refresh
) -> None:
    listed = pl.DataFrame({"000001": ["000002"], "Zoë": ["Anna"]})
    with pytest.raises(ListRefused, match="None of the list's 2 columns is a field") as caught:
        validate(local, rules, refresh, listed)
    assert "Zoë" not in str(caught.value)


def test_staged_list_is_released_unless_kept(
    local: Local, rules: list[WorkspaceField], refresh: Refresh
) -> None:
    validate(local, rules, refresh, customers(3))
    keep_staged.fn(local.lake, refresh)
    release_staged.fn(local.lake, refresh)
    assert local.lake.files.exists(f"staging/{refresh.id}/validated.json")
    local.lake.files.remove(f"staging/{refresh.id}/kept")
    release_staged.fn(local.lake, refresh)
    assert not local.lake.files.exists(f"staging/{refresh.id}")
