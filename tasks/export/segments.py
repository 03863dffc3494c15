"""The segments of a run in the lake, and which customer is in which: who got which message, why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import batched
from blocks.storage import reader
from blocks.storage.manifest import Manifest
from blocks.storage.parquet import read_frames, write_parquet
from blocks.storage.scratch import scratch_folder
from blocks.storage.segments import segment_columns, segments_file, write_segments
from blocks.storage.tombstones import leave_out_erased
from nudgescribe import segments
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGE_COLUMNS, SegmentMessage
from nudgescribe.errors import NotFound, NudgeflowError, Retryable
from nudgescribe.fields import column
from nudgescribe.identifiers import compare, identities
from nudgescribe.lazy import np, pl
from tasks.customers.staging import StagingLost, local_copy
from tasks.customers.sync import CUSTOMERS_HELD, as_text
from tasks.customers.validate import Validated
from tasks.export.run import RunToExport
from tasks.policies import RETRIED

ID = MESSAGE_COLUMNS[0]
_ID, _SEGMENT = "\0id", "\0segment"
"""No variable is named so."""


@task(**RETRIED)
def save_segments(
    account: NudgescribeAccount,
    lake: DataLake,
    run: RunToExport,
    validated: Validated | None = None,
    *,
    members: bool = True,
) -> str | None:
    """Write the segments of a run that is in the lake and, if the `members` are asked for, which
    customer is in which, unless they are there; return what has kept them from it.

    Members come from the `validated` list or, without one, from the run's group as it is now, which
    takes the account's profile key. Raises Retryable errors only: the run itself is complete.
    """
    try:
        _save(account, lake, run, validated, members=members)
    except Retryable:
        raise
    except NudgeflowError as error:
        get_run_logger().warning("Run %s lacks segments: %s", run.run_number, error.problem)
        return error.problem
    return None


def _save(
    account: NudgescribeAccount,
    lake: DataLake,
    run: RunToExport,
    validated: Validated | None,
    *,
    members: bool,
) -> None:
    manifest, files = lake.manifest(run.campaign_id, run.run_number), lake.files
    assert manifest
    has_segments = files.exists(segments_file(manifest, "segments"))
    has_members = not members or files.exists(segments_file(manifest, "members"))
    if has_segments and has_members:
        return
    with account.get_client() as client:
        messages = client.rerun_messages(run.campaign_id, run.run_number)
        if not has_segments:
            write_segments(files, manifest, "segments", [_describe(messages)])
        if not has_members:
            variables = sorted({name for message in messages for name in message.segment})
            try:
                _save_members(lake, manifest, messages, _listed(lake, validated, variables))
            except StagingLost:
                held = _held(client, run, variables)
                _save_members(lake, manifest, messages, held)


def _describe(messages: Sequence[SegmentMessage]) -> pl.DataFrame:
    rows = [
        {
            **message.model_dump(),
            "segment_id": segments.segment_id(message.segment),
            "segment": segments.key(message.segment),
        }
        for message in messages
    ]
    columns = segment_columns("segments")
    return pl.DataFrame([{name: row[name] for name in columns} for row in rows], schema=columns)


def _save_members(
    lake: DataLake,
    manifest: Manifest,
    messages: Sequence[SegmentMessage],
    customers: Iterable[pl.DataFrame],
) -> None:
    """Write the segments of those customers who have a message in the run."""
    columns = segment_columns("members")
    with scratch_folder("the members of a run's segments") as folder:
        local = folder / "members.parquet"
        write_parquet(local, columns, _in_segments(customers, messages))
        members = _with_message(lake, manifest, local)
        # The run may be one that an erasure has yet to write again.
        members = leave_out_erased(lake.tombstones(), members, ID)
        write_segments(lake.files, manifest, "members", members)


def _listed(
    lake: DataLake, validated: Validated | None, variables: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """Yield the customers of a list with their variables. Raises StagingLost without one."""
    if validated is None:
        raise StagingLost("There is no list.")
    wanted = column(validated.key).alias(_ID), *segments.columns(variables)
    with local_copy(lake, validated.accepted) as file:
        yield from (frame.select(wanted) for frame in read_frames(file))


def _held(
    client: NudgescribeClient, run: RunToExport, variables: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """Yield the customers of a run's group with their variables. Raises NotFound, AuthError."""
    if run.customer_group_id is None:
        raise NotFound(f"Run {run.run_number} of campaign {run.campaign_id} has no group.")
    customers = client.customers(run.workspace_id, run.customer_group_id)
    schema = dict.fromkeys([_ID, *variables], pl.String())
    for batch in batched(customers, CUSTOMERS_HELD):
        values = {
            name: [as_text(customer.profile.get(name)) for customer in batch] for name in variables
        }
        ids = [customer.customer_id for customer in batch]
        frame = pl.DataFrame({_ID: ids, **values}, schema=schema)
        yield frame.select(_ID, *segments.columns(variables))


def _in_segments(
    customers: Iterable[pl.DataFrame], messages: Sequence[SegmentMessage]
) -> Iterator[pl.DataFrame]:
    variables = sorted({name for message in messages for name in message.segment})
    rows = [
        {
            **dict.fromkeys(variables, ""),
            **message.segment,
            _SEGMENT: segments.segment_id(message.segment),
        }
        for message in messages
    ]
    known = pl.DataFrame(rows, schema=dict.fromkeys([*variables, _SEGMENT], pl.String()))
    for frame in customers:
        # A campaign without variables has one segment.
        joined = frame.join(known, on=variables) if variables else frame.join(known, how="cross")
        yield joined.select(pl.col(_ID).alias(ID), pl.col(_SEGMENT).alias("segment_id"))


def _with_message(lake: DataLake, manifest: Manifest, members: Path) -> Iterator[pl.DataFrame]:
    """Yield the members who have a message in the run: others may have joined or left since."""
    rows = pl.scan_parquet(members).select(pl.len()).collect().item()
    has_message = np.zeros(rows, np.bool_)
    in_run = (identities(frame[ID]) for frame in reader.read_frames(lake.files, manifest))
    listed = (identities(frame[ID]) for frame in read_frames(members))
    with scratch_folder("the comparison of members and messages") as folder:
        for share in compare(in_run, listed, folder):
            both = share.filter(pl.col("change") == "unchanged")
            has_message[both["row"].to_numpy()] = True
    first = 0
    for frame in read_frames(members):
        yield frame.filter(pl.Series(has_message[first : first + frame.height]))
        first += frame.height
