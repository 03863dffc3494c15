"""The customer list: extracted, validated, compared, uploaded as a group."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import CrmSource, DataLake, NudgescribeAccount
from blocks.loading import load
from blocks.parquet import ParquetSink, text_schema
from nudgescribe import contract, fields, rfc4180, segments
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Text
from nudgescribe.errors import BadRequest, ConnectionFailed, NudgeflowError, ServerError
from nudgescribe.polling import poll
from tasks.campaigns import CampaignRef, Refresh
from tasks.policies import BACKOFF, JITTER, ONCE, RETRIES, is_transient
from tasks.staging import Staged, describe, folder_of, local_copy

ROWS_AT_ONCE = 20_000
"""Rows validated or uploaded at a time."""

SETTLE_SECONDS = 1800.0
"""How long an upload the service works off in the background may take."""


class Validated(BaseModel):
    """`accepted` holds the good rows as text; `quarantine` is where the others are named."""

    model_config = ConfigDict(frozen=True)

    accepted: Staged
    extracted: int
    rejected: int
    quarantine: str | None
    key: str


class SegmentCounts(BaseModel):
    """Segments of the list against those of the campaign's current run, and the customers in the
    new ones.
    """

    model_config = ConfigDict(frozen=True)

    matched: int
    new: int
    orphaned: int
    customers_in_new: int


class GroupRef(BaseModel):
    model_config = ConfigDict(frozen=True)

    workspace_id: str
    customer_group_id: str
    name: str


class ListRefused(NudgeflowError):
    advice = "Nothing was changed at Nudgescribe. Correct the list or its query, then start again."


class UploadIncomplete(NudgeflowError):
    advice = "No rerun was started. Retry this flow run; the upload is repeated harmlessly."


@task(cache_policy=ONCE, persist_result=True, result_serializer="json")
def extract_customers(crm: str, lake: str, refresh: Refresh) -> Staged:
    """The customer list as it is in the CRM, staged; a list already staged is kept as it is, so
    that a retry works on the same customers. Raises SourceError.
    """
    source = load(CrmSource, crm)
    store = load(DataLake, lake)
    path = f"{folder_of(refresh)}/extracted.parquet"
    with TemporaryDirectory() as folder:
        local = Path(folder) / "extracted.parquet"
        if not store.exists(path):
            source.extract(local)
            store.put(local, path, private=True)
        store.get(path, local)
        staged = describe(local, path)
    get_run_logger().info("Extracted %s rows from %s", f"{staged.rows:,}", crm)
    return staged


@task(cache_policy=ONCE, persist_result=True, result_serializer="json")
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
        columns = list(pl.read_parquet_schema(source))
        if problems := fields.header_problems(columns, rules):
            raise ListRefused(f"The list does not fit the workspace: {'; '.join(problems)}.")
        accepted, errors = Path(folder) / "accepted.parquet", Path(folder) / "errors.parquet"
        repeated = _repeated(source, fields.key_of(rules))
        rejected = _judge(source, accepted, errors, rules, repeated)
        quarantine = None
        if rejected:
            quarantine = f"quarantine/campaign_id={campaign.campaign_id}/{refresh.id}.parquet"
            store.put(errors, quarantine, private=True)
            _report_errors(errors)
        path = f"{folder_of(refresh)}/accepted.parquet"
        store.put(accepted, path, private=True)
        validated = Validated(
            accepted=describe(accepted, path),
            extracted=staged.rows,
            rejected=rejected,
            quarantine=quarantine,
            key=fields.key_of(rules),
        )
    _check_list(validated, len(repeated), min_rows, max_rejected_share)
    get_run_logger().info(
        "Accepted %s rows, quarantined %s", f"{validated.accepted.rows:,}", f"{rejected:,}"
    )
    return validated


@task(
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=BACKOFF,
    retry_jitter_factor=JITTER,
    retry_condition_fn=is_transient,
)
def compare_segments(
    account: str, campaign: CampaignRef, accepted: Staged, lake: str
) -> SegmentCounts:
    """How the list's segments compare with those of the run before: what the rerun will do."""
    with load(NudgescribeAccount, account).get_client() as client:
        messages = client.rerun_messages(campaign.campaign_id, campaign.previous_run)
    variables = sorted({name for message in messages for name in message.segment})
    with local_copy(load(DataLake, lake), accepted) as file:
        frame = pl.scan_parquet(file)
        missing = [name for name in variables if name not in frame.collect_schema()]
        if missing:
            raise ListRefused(
                f"The list has no column for the campaign's variables {', '.join(missing)}."
            )
        sizes = segments.count(frame, variables)
    compared = segments.compare((m.segment for m in messages), (segment for segment, _ in sizes))
    new = {segments.key(segment) for segment in compared.new}
    return SegmentCounts(
        matched=len(compared.matched),
        new=len(compared.new),
        orphaned=len(compared.orphaned),
        customers_in_new=sum(size for segment, size in sizes if segments.key(segment) in new),
    )


@task(
    cache_policy=ONCE,
    persist_result=True,
    result_serializer="json",
    retries=RETRIES,
    retry_delay_seconds=BACKOFF,
    retry_jitter_factor=JITTER,
    retry_condition_fn=is_transient,
)
def create_group(account: str, campaign: CampaignRef, template: str, refresh: Refresh) -> GroupRef:
    """The customer group of this refresh: the one it made before, or a new one."""
    name = template.format(campaign=campaign.name, run=refresh.started)
    with load(NudgescribeAccount, account).get_client() as client:
        group = _made_before(client, campaign, refresh) or _create(client, campaign, name, refresh)
    get_run_logger().info("Customer group %s: %s", group.customer_group_id, group.name)
    return GroupRef(
        workspace_id=campaign.workspace_id,
        customer_group_id=group.customer_group_id,
        name=group.name,
    )


@task(
    cache_policy=ONCE,
    persist_result=True,
    result_serializer="json",
    retries=RETRIES,
    retry_delay_seconds=BACKOFF,
    retry_jitter_factor=JITTER,
    retry_condition_fn=is_transient,
)
def upload_customers(account: str, group: GroupRef, accepted: Staged, lake: str) -> int:
    """Uploads the accepted rows in chunks and returns the group's size, which equals theirs.

    The service upserts by identifier, so a repeated upload changes nothing.
    Raises UploadIncomplete if the service refuses a row or ends up with another number.
    """
    log = get_run_logger()
    with (
        load(NudgescribeAccount, account).get_client() as client,
        local_copy(load(DataLake, lake), accepted) as source,
    ):
        sent = 0
        for frame in _batches(source):
            result = client.upload_customers(
                group.workspace_id, group.customer_group_id, rfc4180.write(frame)
            )
            _check_upload(result, sent)
            sent += frame.height
            log.info("Uploaded %s of %s customers", f"{sent:,}", f"{accepted.rows:,}")
        return _settled_size(client, group, accepted.rows)


def _batches(source: Path) -> Iterator[pl.DataFrame]:
    return pl.scan_parquet(source).collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True)


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
    columns = list(pl.read_parquet_schema(source))
    schema = pl.Schema(
        {"row": pl.UInt32(), "field": pl.String(), "code": pl.String(), "reason": pl.String()}
    )
    start, rejected = 0, 0
    with ParquetSink(accepted, text_schema(columns)) as good, ParquetSink(errors, schema) as bad:
        for frame in _batches(source):
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


def _made_before(
    client: NudgescribeClient, campaign: CampaignRef, refresh: Refresh
) -> contract.CustomerGroup | None:
    groups = client.list_groups(campaign.workspace_id)
    return next((group for group in groups if group.description == refresh.mark), None)


def _create(
    client: NudgescribeClient, campaign: CampaignRef, name: str, refresh: Refresh
) -> contract.CustomerGroup:
    try:
        return client.create_group(campaign.workspace_id, name, refresh.mark)
    except BadRequest as error:
        if Text.GROUP_EXISTS not in error.problem:
            raise
        # Another refresh of the same minute has the name: ours gets the flow run's short id.
        longer = f"{name} ({refresh.id[:8]})"
        return client.create_group(campaign.workspace_id, longer, refresh.mark)
    except (ConnectionFailed, ServerError):
        if made := _made_before(client, campaign, refresh):
            return made
        raise


def _check_upload(result: contract.UploadResult, sent: int) -> None:
    if result.rejected:
        named = ", ".join(
            f"row {sent + each.row} {each.field} ({each.code})" for each in result.errors[:5]
        )
        raise UploadIncomplete(
            f"The service refused {result.rejected:,} rows that keep the rules as we know them, "
            f"counted among the accepted ones: {named}."
        )


def _settled_size(client: NudgescribeClient, group: GroupRef, expected: int) -> int:
    def look() -> int:
        return client.count_customers(group.workspace_id, group.customer_group_id).total

    size = 0
    for size in poll(look, SETTLE_SECONDS):
        if size >= expected:
            break
    if size != expected:
        raise UploadIncomplete(
            f"Group {group.customer_group_id} has {size:,} customers, not {expected:,}."
        )
    return size
