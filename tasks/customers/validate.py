"""The customer list, validated by the workspace's rules before anything is changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import AliasChoices, Field

from blocks import DataLake
from blocks.crm.list_file import ListFile, Origin
from blocks.iterators import prefetch
from blocks.storage.parquet import ParquetSink, text_schema
from blocks.storage.scratch import scratch_folder
from nudgescribe import fields
from nudgescribe.bases import Frozen
from nudgescribe.contract import WorkspaceField
from nudgescribe.errors import NudgeflowError
from tasks.customers.fingerprint import Fingerprint
from tasks.customers.guardrails import ListCounts
from tasks.customers.mapping import FieldMapping
from tasks.customers.staging import (
    RowsLost,
    Staged,
    describe,
    local_copy,
)
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.ui.markdown import plain

ROWS_VALIDATED = 50_000
"""Most rows validated at a time."""
ACCEPTED = "accepted.parquet"
EXACT = {Origin.FLOAT16: 2**11, Origin.FLOAT32: 2**24, Origin.FLOAT64: 2**53}
"""Up to where floating-point numbers can be told from their neighbours."""
ERRORS = pl.Schema(
    {"row": pl.UInt32(), "field": pl.String(), "code": pl.String(), "reason": pl.String()}
)


class BrokenRule(Frozen):
    """The number of rows that one rule rejected, by field and code; a row may break several."""

    field: str
    code: str
    rows: int


class Validated(Frozen):
    """The outcome of a validation: `accepted` holds the accepted rows as text, `quarantine` is the
    path of the file that lists the rejected ones, `broken_rules` counts them by rule. `key` is the
    field that identifies customers.
    """

    accepted: Staged
    extracted: int
    rejected: int
    broken_rules: list[BrokenRule] = Field(
        default=[], validation_alias=AliasChoices("broken_rules", "refused")
    )
    quarantine: str | None
    key: str
    fingerprint: str

    def counts(self, before: int | None, new: int = 0, orphaned: int = 0) -> ListCounts:
        """Return the list in numbers, for the guardrails."""
        return ListCounts(
            accepted=self.accepted.rows,
            rejected=self.rejected,
            quarantine=self.quarantine,
            before=before,
            new_segments=new,
            orphaned_segments=orphaned,
        )


class ListRefused(NudgeflowError):
    """The list as a whole does not fit the workspace."""

    advice = "Nothing was changed at Nudgescribe. Correct the list or its query, then start again."


@task(**RETRIED)
def validate_customers(
    mapping: FieldMapping,
    staged: Staged,
    lake: DataLake,
    refresh: Refresh,
    strict: bool,
    partition: str,
) -> Validated:
    """Stage the rows that keep the workspace's rules, and list the others in the `partition` of the
    lake's quarantine. A list is validated once per refresh: a retry returns the same outcome.

    Raises MappingRefused; ListRefused for wrong columns, for repeated identifiers and, if `strict`,
    for the first rejected row.
    """
    quarantine = f"quarantine/{partition}/{refresh.id}.parquet"

    def compute() -> Validated:
        path = f"{refresh.staging}/{ACCEPTED}"
        return _validate(mapping, staged, lake, strict, path, quarantine)

    return Journal(lake.files, refresh.journal).step(Step.VALIDATED, Validated, compute)


def _validate(
    mapping: FieldMapping, staged: Staged, lake: DataLake, strict: bool, path: str, quarantine: str
) -> Validated:
    """Put the accepted rows under `path` and the others under `quarantine`. Raises ListRefused."""
    with local_copy(lake, staged) as source, scratch_folder("the validation of a list") as folder:
        listed = ListFile(source)
        values = mapping.expressions(listed)
        _check_columns([*values], mapping.rules, listed.certain)
        split = _validate_rows(listed, values, mapping, folder, strict)
        if split.rejected:
            lake.files.put(split.errors, quarantine, private=True)
        broken_rules = _report_errors(split.errors) if split.rejected else []
        if split.repeated:
            raise ListRefused(
                f"{split.repeated:,} customer identifiers occur more than once. "
                f"See {quarantine} in the lake."
            )
        lake.files.put(split.accepted, path, private=True)
        accepted = describe(split.accepted, path)
        if accepted.rows + split.rejected != staged.rows:
            raise RowsLost(
                f"Of {staged.rows:,} rows extracted, {accepted.rows:,} were accepted and "
                f"{split.rejected:,} rejected."
            )
    counts = f"{accepted.rows:,}", f"{split.rejected:,}"
    get_run_logger().info("Accepted %s rows, rejected %s", *counts)
    return Validated(
        accepted=accepted,
        extracted=staged.rows,
        rejected=split.rejected,
        broken_rules=broken_rules,
        quarantine=quarantine if split.rejected else None,
        key=fields.key_of(mapping.rules),
        fingerprint=split.fingerprint,
    )


@dataclass(frozen=True)
class _SplitList:
    """A list divided into two local files, its rejected rows and repeated identifiers counted."""

    accepted: Path
    errors: Path
    rejected: int
    repeated: int
    fingerprint: str


def _check_columns(names: list[str], rules: list[WorkspaceField], certain: bool) -> None:
    problems = fields.header_problems(names, rules, certain)
    if not {rule.field_name for rule in rules} & {*names}:
        raise ListRefused(
            f"None of the list's {len(names):,} columns is a field of the workspace: "
            "look whether it has a header row, or name the columns in options.fields. "
            f"{'; '.join(problems)}."
        )
    if problems:
        raise ListRefused(f"The list does not fit the workspace: {'; '.join(problems)}.")


def _validate_rows(
    listed: ListFile,
    values: Mapping[str, pl.Expr],
    mapping: FieldMapping,
    folder: Path,
    strict: bool,
) -> _SplitList:
    """Validate every row of the list. Raises ListRefused for the first rejected one if `strict`."""
    columns, key = [*values], fields.key_of(mapping.rules)

    def texts() -> Iterator[pl.DataFrame]:
        selected = [value.alias(name) for name, value in values.items()]
        return (frame.select(selected) for frame in listed.frames(ROWS_VALIDATED))

    column = mapping.columns(listed.columns).get(key)
    repeated = fields.duplicate_ids(lambda: _identifiers(listed, column, values[key]), folder)
    accepted, errors = folder / ACCEPTED, folder / "errors.parquet"
    fingerprint, rejected = Fingerprint(columns), 0
    with (
        ParquetSink(accepted, text_schema(columns)) as accepted_sink,
        ParquetSink(errors, ERRORS) as errors_sink,
    ):
        for validation in prefetch(_validate_batches(texts(), mapping.rules, repeated)):
            if strict and validation.errors.height:
                raise _first_of(validation.errors)
            accepted_sink.write(validation.accepted)
            fingerprint.add(validation.accepted)
            errors_sink.write(validation.errors)
            rejected += validation.rejected_rows
    return _SplitList(accepted, errors, rejected, len(repeated), str(fingerprint))


def _identifiers(listed: ListFile, column: str | None, value: pl.Expr) -> Iterator[pl.Series]:
    """Yield the customer identifiers, which `column` holds unless they are all the same.

    Raises ListRefused for one that was a floating-point number and may have lost digits.
    """
    origins = listed.origins(column) if column is not None else set[Origin]()
    exact = min((EXACT[origin] for origin in origins if origin in EXACT), default=None)
    read = None if column is None else [column]
    for frame in listed.frames(ROWS_VALIDATED, read):
        ids = frame.select(value.alias("id")).to_series()
        if exact and (ids.cast(pl.Float64, strict=False).abs() > exact).any():
            raise ListRefused(
                f"The customer identifiers are floating-point numbers, some above {exact:,}: "
                "these have lost digits. Write them as integers or text."
            )
        yield ids


def _validate_batches(
    texts: Iterator[pl.DataFrame], rules: list[WorkspaceField], repeated: pl.Series
) -> Iterator[fields.Validation]:
    """Validate batch by batch; number the rows in errors from 1 through the whole list."""
    before = 0
    for frame in texts:
        validation = fields.validate(frame, rules, repeated)
        errors = validation.errors.with_columns(
            pl.col("row") + (before + 1),
            pl.col("code").replace_strict(fields.REASONS, return_dtype=pl.String()).alias("reason"),
        )
        yield fields.Validation(validation.accepted, errors)
        before += frame.height


def _first_of(errors: pl.DataFrame) -> ListRefused:
    first = errors.row(0, named=True)
    return ListRefused(f"Row {first['row']:,}, field '{first['field']}': {first['reason']}.")


def _report_errors(errors: Path) -> list[BrokenRule]:
    counts = (
        pl.scan_parquet(errors)
        .group_by("field", "code", "reason")
        .agg(pl.len().alias("rows"), pl.col("row").min().alias("first row"))
        .sort("field", "code")
        .collect()
    )
    rows = [{**row, "field": plain(row["field"])} for row in counts.to_dicts()]
    create_table_artifact(table=rows, key="rejected-customers", description="Rejected rows by rule")
    return [BrokenRule(field=row[0], code=row[1], rows=row[3]) for row in counts.iter_rows()]
