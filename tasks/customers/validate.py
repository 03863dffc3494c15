"""The customer list judged by the workspace's rules, before anything is changed."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from blocks import DataLake
from blocks.iterators import prefetch
from blocks.storage.parquet import ParquetSink, text_schema
from blocks.storage.scratch import scratch_folder
from nudgescribe import fields
from nudgescribe.contract import WorkspaceField
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import Refresh
from tasks.customers.fingerprint import Fingerprint
from tasks.customers.guardrails import ListCounts
from tasks.customers.mapping import FieldSources, as_text, mapped
from tasks.customers.staging import Staged, batches, describe, folder_of, local_copy, noted
from tasks.policies import READ

ROWS_JUDGED = 50_000
"""Rows judged at a time."""
ACCEPTED = "accepted.parquet"
ERRORS = pl.Schema(
    {"row": pl.UInt32(), "field": pl.String(), "code": pl.String(), "reason": pl.String()}
)


class BrokenRule(BaseModel):
    """Count the rows that one rule rejected, by field and code; a row may be among several."""

    model_config = ConfigDict(frozen=True)

    field: str
    code: str
    rows: int


class Validated(BaseModel):
    """`accepted` holds the good rows as text; `quarantine` is where the others are named, and
    `broken_rules` counts them by what is wrong.
    """

    model_config = ConfigDict(frozen=True)

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
        """The list in numbers, for the guardrails."""
        return ListCounts(
            rows=self.accepted.rows,
            rejected=self.rejected,
            quarantine=self.quarantine,
            before=before,
            new_segments=new,
            orphaned_segments=orphaned,
        )


class ListRefused(NudgeflowError):
    advice = "Nothing was changed at Nudgescribe. Correct the list or its query, then start again."


@task(**READ)
def validate_customers(
    rules: list[WorkspaceField],
    staged: Staged,
    lake: DataLake,
    refresh: Refresh,
    sources: FieldSources,
    strict: bool,
    place: str,
) -> Validated:
    """Which rows keep the workspace's rules; the others are named in the lake's quarantine, in
    `place`. A refresh judges its list once: a retry finds what was found.

    Raises MappingRefused, and ListRefused for wrong columns, for repeated identifiers and, if
    `strict`, for the first bad row.
    """

    def find_out() -> Validated:
        found = _validate(lake, rules, staged, refresh, sources, strict, place)
        good, bad = f"{found.accepted.rows:,}", f"{found.rejected:,}"
        get_run_logger().info("Accepted %s rows, rejected %s", good, bad)
        return found

    return noted(lake, f"{folder_of(refresh)}/validated.json", Validated, find_out)


def _validate(
    lake: DataLake,
    rules: list[WorkspaceField],
    staged: Staged,
    refresh: Refresh,
    sources: FieldSources,
    strict: bool,
    place: str,
) -> Validated:
    with local_copy(lake, staged) as source, scratch_folder("the list as it is judged") as folder:
        listed = mapped(pl.scan_parquet(source), sources)
        schema = listed.collect_schema()
        if not {rule.field_name for rule in rules} & {*schema.names()}:
            # They may be a customer's values: they are not told.
            raise ListRefused(
                f"None of the list's {len(schema)} columns is a field of the workspace: "
                "look whether it has a header row, or name the columns in options.fields."
            )
        problems = fields.header_problems(schema.names(), rules) + fields.type_problems(schema)
        if problems:
            raise ListRefused(f"The list does not fit the workspace: {'; '.join(problems)}.")
        accepted, errors = folder / ACCEPTED, folder / "errors.parquet"
        key = fields.key_of(rules)

        def texts(some: pl.LazyFrame) -> Iterator[pl.DataFrame]:
            return (as_text(frame, sources, rules) for frame in batches(some, ROWS_JUDGED))

        repeated = fields.repeated_ids(
            lambda: (part[key] for part in texts(listed.select(fields.column(key))))
        )
        fingerprint = Fingerprint(schema.names())
        with (
            ParquetSink(accepted, text_schema(schema.names())) as good,
            ParquetSink(errors, ERRORS) as bad,
        ):
            rejected = 0
            for verdict in prefetch(_verdicts(texts(listed), rules, repeated)):
                if strict and verdict.errors.height:
                    raise _first_of(verdict.errors)
                good.write(verdict.accepted)
                fingerprint.add(verdict.accepted)
                bad.write(verdict.errors)
                rejected += verdict.rejected_rows
        quarantine, broken_rules = None, list[BrokenRule]()
        if rejected:
            quarantine = f"quarantine/{place}/{refresh.id}.parquet"
            lake.files.put(errors, quarantine, private=True)
            broken_rules = _report_errors(errors)
        if len(repeated):
            raise ListRefused(
                f"{len(repeated):,} customer identifiers occur more than once. "
                f"See {quarantine} in the lake."
            )
        path = f"{folder_of(refresh)}/{ACCEPTED}"
        lake.files.put(accepted, path, private=True)
        return Validated(
            accepted=describe(accepted, path),
            extracted=staged.rows,
            rejected=rejected,
            broken_rules=broken_rules,
            quarantine=quarantine,
            key=key,
            fingerprint=str(fingerprint),
        )


def _verdicts(
    texts: Iterator[pl.DataFrame], rules: list[WorkspaceField], repeated: pl.Series
) -> Iterator[fields.Verdict]:
    """Part by part; rows are numbered from 1 through the whole list, errors have their reason."""
    before = 0
    for frame in texts:
        verdict = fields.judge(frame, rules, repeated)
        errors = verdict.errors.with_columns(
            pl.col("row") + (before + 1),
            pl.col("code").replace_strict(fields.REASONS, return_dtype=pl.String()).alias("reason"),
        )
        yield fields.Verdict(verdict.accepted, errors)
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
    create_table_artifact(
        table=counts.to_dicts(), key="rejected-customers", description="Rejected rows by rule"
    )
    return [BrokenRule(field=row[0], code=row[1], rows=row[3]) for row in counts.iter_rows()]
