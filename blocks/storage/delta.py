"""The Delta table over the lake's Parquet files, with a partition for each run."""

import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from blocks.storage.errors import LakeUnreachable
from blocks.storage.files import Files, LakeError
from blocks.storage.manifest import DELTA_LOG, MESSAGES, Manifest, run_folder
from blocks.storage.proof import is_s3
from nudgescribe.contract import MESSAGE_COLUMNS

PARTITIONS = ["campaign_id", "run_number"]
TRIES = 20
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
    """Replace a run's partition in the table by the parts of its manifest.

    `options` are those of the file system. The table is created if there is none.

    Raises LakeError if Delta cannot be written there, LakeUnreachable.
    """
    with _translate_errors(files):
        _overwrite(files, options, manifest, _add_actions(manifest))


def remove(files: Files, options: dict[str, Any], manifest: Manifest) -> None:
    """Remove a run from the table, which exists; do nothing if it does not show the manifest's
    parts.

    Raises as `commit` does.
    """
    with _translate_errors(files):
        _overwrite(files, options, manifest, [], only_if_shown=True)


@contextmanager
def _translate_errors(files: Files) -> Generator[None]:
    with files.translate_errors(DELTA_LOG):
        try:
            yield
        except OSError:
            if files.is_local:
                raise
            # Delta has tried again itself; its text holds addresses.
            raise LakeUnreachable(f"The lake could not be reached at {DELTA_LOG}.") from None
        except DeltaError as error:
            raise LakeError(
                f"The Delta table at {DELTA_LOG} cannot be read or written: {type(error).__name__}."
            ) from None


def _overwrite(
    files: Files,
    options: dict[str, Any],
    manifest: Manifest,
    actions: list[AddAction | RemoveAction],
    *,
    only_if_shown: bool = False,
) -> None:
    root, storage = f"{files.root}/{MESSAGES}", _storage_options(files, options)
    partition = [(name, "=", value) for name, value in _partition(manifest).items()]
    for _ in range(TRIES):
        # If another writer has created the table or committed to it, it is opened again.
        with suppress(CommitFailedError):
            table = _open_table(root, storage)
            if not only_if_shown or _shows(table, partition, manifest):
                table.create_write_transaction(
                    actions,
                    "overwrite",
                    _SCHEMA,
                    PARTITIONS,
                    partition,
                    # Delta's own retries would let two writers both add the same new partition.
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
            return
    raise LakeError(f"The Delta table {root} changed too often to commit to it.")


def _shows(table: DeltaTable, partition: list[tuple[str, str, str]], manifest: Manifest) -> bool:
    uris: list[str] = table.file_uris(file_pruning_predicate=partition)
    shown = {uri.rpartition("/")[2] for uri in uris}
    return bool(shown & {part.name for part in manifest.parts})


def _partition(manifest: Manifest) -> dict[str, str]:
    return {"campaign_id": manifest.campaign_id, "run_number": str(manifest.run_number)}


def _add_actions(manifest: Manifest) -> list[AddAction | RemoveAction]:
    folder = run_folder(manifest.campaign_id, manifest.run_number).removeprefix(f"{MESSAGES}/")
    milliseconds = int(datetime.now(UTC).timestamp() * 1000)
    return [
        AddAction(
            path=f"{folder}/{part.name}",
            size=part.bytes,
            partition_values=_partition(manifest),
            modification_time=milliseconds,
            data_change=True,
            stats=json.dumps({"numRecords": part.rows}),
        )
        for part in manifest.parts
    ]


def _open_table(root: str, storage: dict[str, str] | None) -> DeltaTable:
    try:
        return DeltaTable(root, storage_options=storage)
    except TableNotFoundError:
        create_table_with_add_actions(
            root, _SCHEMA, [], mode="ignore", partition_by=PARTITIONS, storage_options=storage
        )
        return DeltaTable(root, storage_options=storage)


def _storage_options(files: Files, options: dict[str, Any]) -> dict[str, str] | None:
    """Translate the options of s3fs into those of deltalake. Raises LakeError."""
    if files.is_local:
        return None
    if not is_s3(files.fs):
        raise LakeError(f"Delta is written to a local folder or to S3, not to {files.root}.")
    client: dict[str, Any] = options.get("client_kwargs") or {}
    endpoint = options.get("endpoint_url") or client.get("endpoint_url")
    encryption: dict[str, Any] = options.get("s3_additional_kwargs", {})
    translated = {
        "AWS_ACCESS_KEY_ID": options.get("key"),
        "AWS_SECRET_ACCESS_KEY": options.get("secret"),
        "AWS_SESSION_TOKEN": options.get("token"),
        "AWS_REGION": client.get("region_name"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true" if str(endpoint).startswith("http://") else None,
        "AWS_SERVER_SIDE_ENCRYPTION": encryption.get("ServerSideEncryption"),
        "AWS_SSE_KMS_KEY_ID": encryption.get("SSEKMSKeyId"),
    }
    return {name: str(value) for name, value in translated.items() if value is not None}
