"""Our judgement of a list, and the service's of what came of it."""

import hmac
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from blocks import DataLake, FileCrm
from blocks.crm import SourceError
from blocks.storage.manifest import NO_CAMPAIGN
from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import WorkspaceField
from tasks.customers.extract import extract_customers
from tasks.customers.mapping import FieldMapping
from tasks.customers.split import ListRefused
from tasks.customers.validate import BrokenRule, Validated, validate_customers
from tasks.journal.refresh import Refresh
from tasks.ui.console import StatusLine
from tests.conftest import Company, customers
from tests.tasks.conftest import Local, forgotten
from tests.tasks.customers.test_mapping import rule

PARTITION = "campaign_id=C"
ANYTHING = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.sampled_from(["29/02/2023", "29/02/2024", "1.234", "-0.5", "1e5", " ", "é", "e\u0301"]),
)
CUSTOMERS = st.fixed_dictionaries(dict.fromkeys(customers(1).columns[1:], ANYTHING))

Validate = Callable[..., Validated]


@pytest.fixture
def rules(company: Company, client: NudgescribeClient) -> list[WorkspaceField]:
    return client.list_fields(company.seeded.workspace_id)


@pytest.fixture
def validate(local: Local, rules: list[WorkspaceField], refresh: Refresh) -> Validate:
    """Validates a list by the workspace's rules."""

    def validated(
        listed: pl.DataFrame,
        refresh: Refresh = refresh,
        *,
        again: bool = False,
        rules: list[WorkspaceField] = rules,
        lake: DataLake = local.lake,
        **options: Any,
    ) -> Validated:
        mapping, staged = FieldMapping(rules=rules, sources={}), local.staged(listed)
        refresh = refresh if again else forgotten(refresh)
        return validate_customers.fn(mapping, staged, lake, refresh, PARTITION, **options)

    return validated


def in_lake(local: Local, path: str | None) -> pl.DataFrame:
    assert path is not None
    return pl.read_parquet(local.lake.files.fs_path(path))


@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(CUSTOMERS, max_size=9))
def test_validation_agrees_with_service_row_by_row(
    company: Company,
    client: NudgescribeClient,
    local: Local,
    validate: Validate,
    rows: list[dict[str, str | None]],
) -> None:
    schema = dict.fromkeys(customers(1).columns, pl.String)
    hostile = [{"customer_id": f"h{number}", **row} for number, row in enumerate(rows)]
    listed = pl.concat([pl.DataFrame(hostile, schema), customers(6, invalid_every=3)])
    validated = validate(listed)
    accepted = in_lake(local, validated.accepted.path)
    # The two customers that are invalid in any case see to a quarantine.
    errors = in_lake(local, validated.quarantine).drop("reason", "identifier")
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
    local: Local, validate: Validate, refresh: Refresh
) -> None:
    listed = customers(100, invalid_every=30).with_columns(
        plan=pl.when(pl.int_range(pl.len()) == 4).then(pl.lit("")).otherwise("plan")
    )
    validated = validate(listed)
    assert validated.quarantine == f"quarantine/{PARTITION}/{refresh.id}.parquet"
    quarantine = in_lake(local, validated.quarantine)
    assert quarantine.columns == ["row", "identifier", "field", "code", "reason"]
    assert quarantine["row"].to_list() == [5, 30, 60, 90]
    required = {"field": "plan", "code": "required", "reason": "a value is required"}
    assert quarantine.row(0, named=True) == {"row": 5, "identifier": "000005", **required}
    (row,) = (row for row in local.artifacts["rejected"] if row["field"] == "plan")
    assert row == {**required, "rows": 1, "first row": 5}
    by_rule = quarantine.group_by("field", "code").len("rows").sort("field", "code")
    assert validated.broken_rules == [BrokenRule(**each) for each in by_rule.rows(named=True)]
    assert BrokenRule(field="plan", code="required", rows=1) in validated.broken_rules
    root = Path(local.lake.root)
    private = [*root.glob(f"staging/{refresh.id}/*"), *root.glob("quarantine/*/*")]
    assert len(private) == 2
    assert {file.stat().st_mode & 0o777 for file in private} == {0o600}


def test_validation_numbers_rows_through_whole_list(
    local: Local, validate: Validate, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.customers.split.ROWS_VALIDATED", 7)
    listed = pl.concat([customers(60, invalid_every=20), customers(2)])
    with pytest.raises(ListRefused, match="2 customer identifiers occur more than once.*quaran"):
        validate(listed)
    found = in_lake(local, f"quarantine/{PARTITION}/{refresh.id}.parquet")
    assert found["row"].to_list() == [1, 2, 20, 40, 60, 61, 62]


def test_strict_list_is_refused_at_first_rejected_row(
    local: Local, validate: Validate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.customers.split.ROWS_VALIDATED", 7)
    with pytest.raises(ListRefused, match=r"^Row 30, field '\w+': [a-z ']+\. Nothing was changed"):
        validate(customers(100, invalid_every=30), strict=True)
    assert not local.lake.files.exists("quarantine")
    assert validate(customers(29), strict=True).rejected == 0


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (customers(3).drop("customer_id"), "column 'customer_id' is missing"),
        (customers(3).drop("first_name"), "column 'first_name' is missing"),
        (
            customers(3).with_columns(shoe_size=pl.lit("x")),
            r"column \d+ is no field of the workspace",
        ),
        (
            pl.DataFrame({"000001": ["000002"], "Zoë": ["Anna"]}),
            "None of the list's 2 columns is a field.*columns 1, 2 are no fields",
        ),
        (
            customers(3).rename({"plan": "Plan\u200b"}),
            r"column \d+ is 'Plan\\u200b', not 'plan'",
        ),
    ],
)
def test_list_is_refused_when_columns_do_not_fit(
    validate: Validate, listed: pl.DataFrame, problem: str
) -> None:
    with pytest.raises(ListRefused, match=problem) as caught:
        validate(listed)
    # Without a header row the names of columns are a customer's.
    assert "Zoë" not in str(caught.value)


def test_fingerprint_ignores_order_of_rows(
    local: Local, validate: Validate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.customers.split.ROWS_VALIDATED", 20)

    def fingerprint(listed: pl.DataFrame) -> str:
        local.lake.files.remove("staging")
        return validate(listed).fingerprint

    listed = customers(50)
    first = fingerprint(listed)
    other = pl.when(pl.col("customer_id") == "000007").then(pl.lit("x")).otherwise("last_name")
    without = listed.drop("last_name").with_columns(grade=pl.lit(None, pl.String))
    assert fingerprint(listed.reverse().select(reversed(listed.columns))) == first
    assert fingerprint(listed.with_columns(last_name=other)) != first
    assert fingerprint(listed.head(49)) != first
    swapped = listed.rename({"first_name": "last_name", "last_name": "first_name"})
    assert fingerprint(swapped) != first
    assert fingerprint(without) != fingerprint(without.rename({"grade": "last_name"}))
    assert fingerprint(listed.clear()) == fingerprint(listed.clear())


def test_repeated_identifiers_are_found_as_sent(local: Local, validate: Validate) -> None:
    key = rule("born", "Date", "dd.MM.yyyy").model_copy(update={"unique": True})
    listed = pl.DataFrame({"born": [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 2)]})
    with pytest.raises(ListRefused, match="1 customer identifier occurs more than once"):
        validate(listed, rules=[key])
    table = local.artifacts["rejected"]
    assert [(row["code"], row["rows"]) for row in table] == [("duplicate", 2)]


def listed_twice() -> pl.DataFrame:
    """Rows 2, 9 and 12 are one customer's, the last of them breaks a rule; row 11 is nobody's."""
    ids = ["2" if n in (2, 9, 12) else None if n == 11 else str(n) for n in range(1, 13)]
    return pl.DataFrame({"id": ids, "n": [*map(str, range(1, 12)), "many"]})


@pytest.mark.parametrize(
    ("choice", "taken", "rejected"),
    [
        ("first", ["2"], [(9, "2", "duplicate"), (11, None, "required"), (12, "2", "duplicate")]),
        (
            "last",
            [],
            [
                (2, "2", "duplicate"),
                (9, "2", "duplicate"),
                (11, None, "required"),
                (12, "2", "number"),
            ],
        ),
    ],
)
def test_one_row_of_a_customer_is_taken_when_asked(
    local: Local,
    validate: Validate,
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
    taken: list[str],
    rejected: list[tuple[object, ...]],
) -> None:
    monkeypatch.setattr("tasks.customers.split.ROWS_VALIDATED", 5)
    key = rule("id", "string").model_copy(update={"unique": True})
    validated = validate(listed_twice(), rules=[key, rule("n", "number")], duplicates=choice)
    assert validated.duplicates == choice
    accepted = in_lake(local, validated.accepted.path)
    assert accepted.filter(id="2")["n"].to_list() == taken
    assert accepted.height + validated.rejected == 12
    errors = in_lake(local, validated.quarantine)
    assert errors.select("row", "identifier", "code").rows() == rejected
    counted = [row for row in rejected if row[-1] != "duplicate"]
    assert validated.counts(before=None).rejected == len(counted)


def test_strict_validation_takes_copies_that_are_left_out_as_asked(validate: Validate) -> None:
    listed = pl.DataFrame({"id": ["1", "1", "2"], "n": ["1", "2", "many"]})
    rules = [rule("id", "string").model_copy(update={"unique": True}), rule("n", "number")]
    given: dict[str, Any] = {"rules": rules, "duplicates": "first", "strict": True}
    assert validate(listed.head(2), **given).accepted.rows == 1
    with pytest.raises(ListRefused, match="Row 3, field 'n'"):
        validate(listed, **given)


def test_quarantine_has_a_keyed_hash_of_identifiers_when_asked(
    local: Local, validate: Validate
) -> None:
    lake = DataLake(root=local.lake.root, identifier_key=SecretStr("key"))
    validated = validate(customers(60, invalid_every=30), lake=lake)
    found = in_lake(local, validated.quarantine)["identifier"].to_list()
    wanted = [hmac.new(b"key", f"0000{n}".encode(), "sha256").hexdigest() for n in (30, 60)]
    assert found == wanted


def test_quarantine_of_all_flows_is_one_table(
    local: Local, validate: Validate, rules: list[WorkspaceField]
) -> None:
    listed = customers(30, invalid_every=10)
    validate(listed)
    for partition, id_ in (("campaign_id=D", "r2"), (NO_CAMPAIGN, "r3")):
        other = Refresh(id=id_, started=datetime(2026, 1, 1, tzinfo=UTC), journal=f"journals/{id_}")
        mapping = FieldMapping(rules=rules, sources={})
        staged = local.staged(listed, id_)
        validate_customers.fn(mapping, staged, local.lake, other, partition)
    for folder in ("campaign_id=0007", "workspace_id=W"):  # as version 0.1 has left them
        old = Path(local.lake.root, "quarantine", folder, "0.parquet")
        old.parent.mkdir()
        row = {"row": [1], "field": ["age"], "code": ["number"], "reason": ["no number"]}
        pl.DataFrame(row, schema_overrides={"row": pl.UInt32}).write_parquet(old)
    (query,) = re.findall(
        r"```python\n(pl\.scan_parquet\([^`]*quarantine[^`]*)```", Path("docs/lake.md").read_text()
    )
    frame = eval(query.replace("LAKE", local.lake.root)).collect()
    assert frame.group_by("campaign_id").len().sort("campaign_id").rows() == [
        (None, 3),
        ("0007", 1),
        ("C", 3),
        ("D", 3),
    ]


def test_panic_of_a_library_is_a_refusal(
    validate: Validate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*_: object) -> None:
        raise pl.exceptions.PanicException("a customer's value")

    monkeypatch.setattr("tasks.customers.duplicates.fields.validate", panic)
    with pytest.raises(ListRefused, match="PanicException in test_validate.py") as caught:
        validate(customers(3))
    assert "customer's value" not in str(caught.value)


def test_float_identifiers_that_have_lost_digits_are_refused(
    local: Local, validate: Validate
) -> None:
    key = rule("id", "string").model_copy(update={"unique": True})
    whole = validate(pl.DataFrame({"id": [123.0, 2.0**53 - 1]}), rules=[key])
    assert in_lake(local, whole.accepted.path)["id"].to_list() == ["123", str(2**53 - 1)]
    with pytest.raises(ListRefused, match="floating-point numbers, some of 9,007.* or more"):
        validate(pl.DataFrame({"id": [9007199254740993.0]}), rules=[key])
    for odd in ("nan", "inf", "-inf"):
        with pytest.raises(ListRefused, match="some of which are no number"):
            validate(pl.DataFrame({"id": [1.0, float(odd)]}), rules=[key])


def test_identifiers_of_several_types_of_numbers_are_refused(
    local: Local, validate: Validate, refresh: Refresh
) -> None:
    key = rule("id", "string").model_copy(update={"unique": True})
    mapping = FieldMapping(rules=[key, rule("n", "string")], sources={})
    whole, parts = pl.Series([5]), pl.Series([Decimal("5.00")], dtype=pl.Decimal(10, 2))

    def validated(id_: pl.Series, n: pl.Series) -> Validated:
        folder = local.folder / "parts"
        folder.mkdir(exist_ok=True)
        pl.DataFrame({"id": whole, "n": whole}).write_parquet(folder / "p0.parquet")
        pl.DataFrame({"id": id_, "n": n}).write_parquet(folder / "p1.parquet")
        again = forgotten(refresh)
        local.lake.files.remove("staging")
        crm = FileCrm(path=f"{folder}/*.parquet")
        staged = extract_customers.fn(crm, local.lake, again, None)
        return validate_customers.fn(
            mapping, staged, local.lake, again, PARTITION, duplicates="first"
        )

    assert validated(whole + 1, parts).accepted.rows == 2
    with pytest.raises(ListRefused, match="numbers of several types"):
        validated(parts, whole)


# ---- before and after ---------------------------------------------------------------------------


def test_extract_stages_list_once(
    local: Local, refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(StatusLine, "update", lambda line, text: shown.append(text))
    file = local.folder / "customers.csv"
    crm = FileCrm(path=str(file))
    with pytest.raises(SourceError, match="no such file"):
        extract_customers.fn(crm, local.lake, refresh, None)
    assert not local.lake.files.exists("staging")
    customers(20).write_csv(file)
    first = extract_customers.fn(crm, local.lake, refresh, None)
    assert (first.rows, first.path) == (20, f"staging/{refresh.id}/extracted.parquet")
    assert shown == ["Extracted 20 rows so far"]
    file.write_text("customer_id\nsomebody else\n")
    assert extract_customers.fn(crm, local.lake, refresh, None) == first


def test_validation_returns_first_outcome_when_retried(validate: Validate) -> None:
    first = validate(customers(20), again=True)
    assert validate(customers(30), again=True, rules=[]) == first
