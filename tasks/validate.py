"""The customer list judged by the workspace's rules, before anything is changed."""

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.loading import load
from blocks.parquet import ParquetSink, text_schema
from nudgescribe import contract, fields
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import CampaignRef, Refresh
from tasks.policies import ONCE
from tasks.staging import Staged, batches, describe, folder_of, local_copy


class Validated(BaseModel):
    """`accepted` holds the good rows as text; `quarantine` is where the others are named."""

    model_config = ConfigDict(frozen=True)

    accepted: Staged
    extracted: int
    rejected: int
    quarantine: str | None
    key: str


class ListRefused(NudgeflowError):
    advice = "Nothing was changed at Nudgescribe. Correct the list or its query, then start again."


@task(**ONCE)
def validate_customers(
    account: str,
    campaign: CampaignRef,
    staged: Staged,
    lake: str,
    refresh: Refresh,
    min_rows: int,
    max_rejected_share: float,
) -> Validated:
    """Which rows keep the workspace's rules; the others are named in the lake's quarantine.

    Raises ListRefused for wrong columns, repeated identifiers, too few rows or too many rejected.
    """
    with load(NudgescribeAccount, account).get_client() as client:
        rules = client.list_fields(campaign.workspace_id)
    store = load(DataLake, lake)
    with local_copy(store, staged) as source, TemporaryDirectory() as folder:
        schema = pl.scan_parquet(source).collect_schema()
        problems = fields.header_problems(schema.names(), rules) + fields.type_problems(schema)
        if problems:
            raise ListRefused(f"The list does not fit the workspace: {'; '.join(problems)}.")
        accepted, errors = Path(folder) / "accepted.parquet", Path(folder) / "errors.parquet"
        key = fields.key_of(rules)
        repeated = _repeated(source, key)
        rejected = _judge(source, accepted, errors, rules, repeated)
        quarantine = None
        if rejected:
            quarantine = f"quarantine/campaign_id={campaign.campaign_id}/{refresh.id}.parquet"
            store.files.put(errors, quarantine, private=True)
            _report_errors(errors)
        path = f"{folder_of(refresh)}/accepted.parquet"
        store.files.put(accepted, path, private=True)
        validated = Validated(
            accepted=describe(accepted, path),
            extracted=staged.rows,
            rejected=rejected,
            quarantine=quarantine,
            key=key,
        )
    _check_list(validated, len(repeated), min_rows, max_rejected_share)
    get_run_logger().info(
        "Accepted %s rows, quarantined %s", f"{validated.accepted.rows:,}", f"{rejected:,}"
    )
    return validated


def _repeated(source: Path, key: str) -> pl.Series:
    """The identifiers that occur more than once in the whole list."""
    ids = pl.scan_parquet(source).select(pl.col(key).cast(pl.String)).drop_nulls()
    return (
        ids.filter(pl.col(key).str.strip_chars() != "")
        .group_by(key)
        .len("copies")
        .filter(pl.col("copies") > 1)
        .collect(engine="streaming")[key]
    )


def _judge(
    source: Path,
    accepted: Path,
    errors: Path,
    rules: list[contract.WorkspaceField],
    repeated: pl.Series,
) -> int:
    """Parts a list into accepted rows and errors, in bounded memory; returns how many rows were
    rejected.
    """
    columns = pl.scan_parquet(source).collect_schema().names()
    schema = pl.Schema(
        {"row": pl.UInt32(), "field": pl.String(), "code": pl.String(), "reason": pl.String()}
    )
    start, rejected = 0, 0
    with ParquetSink(accepted, text_schema(columns)) as good, ParquetSink(errors, schema) as bad:
        for frame in batches(source):
            verdict = fields.judge(fields.as_text(frame, rules), rules, repeated)
            good.write(verdict.accepted)
            bad.write(
                verdict.errors.with_columns(
                    pl.col("row") + (start + 1),
                    pl.col("code").replace_strict(fields.REASONS).alias("reason"),
                )
            )
            start += frame.height
            rejected += verdict.rejected_rows
    return rejected


def _report_errors(errors: Path) -> None:
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


def _check_list(
    validated: Validated, repeated: int, min_rows: int, max_rejected_share: float
) -> None:
    rows, rejected = validated.extracted, validated.rejected
    see = f"See {validated.quarantine} in the lake." if rejected else ""
    if repeated:
        raise ListRefused(f"{repeated:,} customer identifiers occur more than once. {see}")
    if rows and rejected / rows > max_rejected_share:
        raise ListRefused(
            f"{rejected:,} of {rows:,} rows were rejected, over {max_rejected_share:.1%}. {see}"
        )
    if validated.accepted.rows < min_rows:
        raise ListRefused(
            f"The list has {validated.accepted.rows:,} good rows, fewer than {min_rows:,}. {see}"
        )
