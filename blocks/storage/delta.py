"""The Delta table over a lake's Parquet files: a commit a run, replacing just its partition."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from blocks.storage.errors import LakeUnreachable
from blocks.storage.files import Files, LakeError, is_s3
from blocks.storage.manifest import MESSAGES, Manifest
from nudgescribe.contract import MESSAGE_COLUMNS

PARTITIONS = ["campaign_id", "run_number"]
TRIES = 20
LOG = f"{MESSAGES}/_delta_log"
_SCHEMA = Schema.from_arrow(
    pa.schema(
        [
            *((name, pa.string()) for name in MESSAGE_COLUMNS),
            ("campaign_id", pa.string()),
            ("run_number", pa.int64()),
        ]
    )
)


def commit(files: Files, options: dict[str, Any], manifest: Manifest) -> None:
    """Makes the table over all runs show a run's parts, and no others of that run.

    `options` are the file system's. Raises LakeError where Delta cannot be written,
    LakeUnreachable if the lake is lost.
    """
    with _lost(files):
        _commit(files, options, manifest)


def remove(files: Files, options: dict[str, Any], manifest: Manifest) -> None:
    """Makes the table, if there is one that shows these parts of a run, show nothing of the run.

    Raises as `commit` does.
    """
    with _lost(files):
        if files.exists(LOG):
            _commit(files, options, manifest, forgotten=True)


@contextmanager
def _lost(files: Files) -> Generator[None]:
    with files.translate_errors(LOG):
        try:
            yield
        except OSError:
            if files.is_local:
                raise
            # What it was has been tried often, and is told with addresses.
            raise LakeUnreachable(f"The lake was lost at {LOG}.") from None


def _commit(
    files: Files, options: dict[str, Any], manifest: Manifest, *, forgotten: bool = False
) -> None:
    root, storage = f"{files.root}/{MESSAGES}", _storage_options(files, options)
    where = {"campaign_id": manifest.campaign_id, "run_number": str(manifest.run_number)}
    folder = "/".join(f"{name}={quote(value, safe='')}" for name, value in where.items())
    written = datetime.now(UTC)
    parts: list[AddAction | RemoveAction] = [
        AddAction(
            path=f"{folder}/{part.name}",
            size=part.bytes,
            partition_values=where,
            modification_time=int(written.timestamp() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": part.rows}),
        )
        for part in manifest.parts
    ]
    partition = [(name, "=", value) for name, value in where.items()]
    for _ in range(TRIES):
        try:
            table = _table(root, storage)
            if forgotten:
                found = table.file_uris(file_pruning_predicate=partition)
                shown = {uri.rpartition("/")[2] for uri in found}
                if not shown & {part.name for part in manifest.parts}:
                    return
                parts = []
            table.create_write_transaction(
                parts,
                "overwrite",
                _SCHEMA,
                PARTITIONS,
                partition,
                # Its own retries let two writers add the same new partition: both would commit.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except CommitFailedError:
            continue  # somebody made the table or committed another run; it is read anew
        return
    raise LakeError(f"The Delta table {root} changed too often to commit to it.")


def _table(root: str, storage: dict[str, str] | None) -> DeltaTable:
    try:
        return DeltaTable(root, storage_options=storage)
    except TableNotFoundError:
        create_table_with_add_actions(
            root, _SCHEMA, [], mode="ignore", partition_by=PARTITIONS, storage_options=storage
        )
        return DeltaTable(root, storage_options=storage)


def _storage_options(files: Files, options: dict[str, Any]) -> dict[str, str] | None:
    """The options of s3fs in the words of deltalake."""
    if files.is_local:
        return None
    if not is_s3(files.fs):
        raise LakeError(f"Delta is written to a local folder or to S3, not to {files.root}.")
    client: dict[str, Any] = options.get("client_kwargs") or {}
    endpoint = options.get("endpoint_url") or client.get("endpoint_url")
    found = {
        "AWS_ACCESS_KEY_ID": options.get("key"),
        "AWS_SECRET_ACCESS_KEY": options.get("secret"),
        "AWS_SESSION_TOKEN": options.get("token"),
        "AWS_REGION": client.get("region_name"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true" if str(endpoint).startswith("http://") else None,
        "AWS_SERVER_SIDE_ENCRYPTION": options.get("s3_additional_kwargs", {}).get(
            "ServerSideEncryption"
        ),
        "AWS_SSE_KMS_KEY_ID": options.get("s3_additional_kwargs", {}).get("SSEKMSKeyId"),
    }
    return {name: str(value) for name, value in found.items() if value is not None}
