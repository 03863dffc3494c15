"""The block for the data lake, which holds messages, staged lists and the quarantine."""

from __future__ import annotations

import hmac
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from prefect.types import SecretDict
from pydantic import Field, SecretStr, ValidationInfo, field_validator

from blocks.documentation import documentation_url
from blocks.extras import require
from blocks.saved import SavedBlock
from blocks.secrets import HINT, read_secret, read_secrets
from blocks.storage import reader
from blocks.storage.errors import LakeUnreachable
from blocks.storage.files import Files, LakeError
from blocks.storage.history import SYNC_CHANGES, SYNC_RUNS, read_history
from blocks.storage.locations import check_delta_root, check_root
from blocks.storage.manifest import Format, Manifest, run_folder
from blocks.storage.part_writer import PartWriter
from nudgescribe import reach
from nudgescribe.lazy import pa, pd, pl

if TYPE_CHECKING:
    from blocks.storage.run_diff import RunDiff
    from blocks.storage.snapshots import Snapshot
    from blocks.storage.tombstones import Tombstones

Compression = Literal["zstd", "snappy", "lz4", "gzip", "none"]


class DataLake(SavedBlock):
    """
    A folder on any fsspec file system that holds the messages of exported runs.

    Example:
        ```python
        from blocks import DataLake

        lake = DataLake.load("BLOCK_NAME")
        messages = lake.read("CAMPAIGN_ID")
        ```
    """

    _block_type_name = "Data lake"
    _documentation_url = documentation_url("the-lake")

    root: str = Field(
        description="Absolute path or fsspec URL of the lake's folder, such as /data/lake or "
        "s3://lake/crm. Put keys and passwords in storage_options: Prefect does not encrypt the "
        "root."
    )
    storage_options: SecretDict | None = Field(
        default=None,
        description="Options of the file system, such as its keys. A value may be a "
        "reference: env:NAME, file:/PATH or prefect:BLOCK.",
    )
    format: Format = Field(
        default="parquet",
        description="Format of the messages. csv and csv.zst hold the service's own bytes; delta "
        "is Parquet with a Delta table over all runs, and needs the extra delta.",
    )
    compression: Compression = Field(default="zstd", description="Compression of Parquet files.")
    compression_level: int | None = Field(
        default=1, description="Compression level of Parquet files, for zstd and gzip."
    )
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, description="Server-side encryption of new files on S3."
    )
    kms_key: str | None = Field(default=None, description="ID of the key, for encryption by KMS.")

    identifier_key: SecretStr | None = Field(
        default=None,
        description="Key of a hash that stands for customer identifiers in quarantine and history. "
        f"If empty, identifiers are stored as they are. {HINT}",
    )

    erasure_key: SecretStr | None = Field(
        default=None,
        description="Key of the hashes that keep erased customers from coming back. Keep it for "
        f"good: without it no customers are erased, nor messages exported afterwards. {HINT}",
    )

    @field_validator("root")
    @classmethod
    def _means_the_same_everywhere(cls, root: str) -> str:
        return check_root(root)

    @field_validator("format")
    @classmethod
    def _fits_the_root(cls, format_: Format, info: ValidationInfo) -> Format:
        if format_ == "delta":
            check_delta_root(info.data.get("root", ""))
            require("delta", "A lake with format delta")
        return format_

    @cached_property
    def files(self) -> Files:
        """Return the files of the lake."""
        return Files(self.root, self.options)

    def check_reachable(self) -> None:
        """Check that a store answers at the endpoint of the options, if they name one, within 10
        seconds: the libraries of stores repeat calls for longer. Raises LakeUnreachable.
        """
        options = self.options
        client: Any = options.get("client_kwargs") or {}
        endpoint = options.get("endpoint_url") or client.get("endpoint_url")
        # Which certificates are trusted is for the store's own library to say.
        if endpoint and (obstacle := reach.find_obstacle(str(endpoint), trusted=False)):
            where = f"{self.block_slug}, endpoint_url"
            raise LakeUnreachable(f"The lake could not be reached: {where}: {obstacle}.")

    def part_writer(self, campaign_id: str, run_number: int, writer: str) -> PartWriter:
        """Return a writer of a run's parts; their names contain `writer`."""
        return PartWriter(
            self.files,
            run_folder(campaign_id, run_number),
            writer,
            self.format,
            self.compression,
            self.parquet_level,
        )

    @property
    def parquet_level(self) -> int | None:
        """Return the compression level of Parquet files; None if their compression has none."""
        return self.compression_level if self.compression in ("zstd", "gzip") else None

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the file system, with its encryption. They are secret.

        Raises SecretUnusable.
        """
        given = self.storage_options.get_secret_value() if self.storage_options else {}
        options = read_secrets(given, f"{self.block_slug}, storage_options")
        if self.encryption:
            headers = {"ServerSideEncryption": self.encryption}
            if self.kms_key:
                headers["SSEKMSKeyId"] = self.kms_key
            options["s3_additional_kwargs"] = {**options.get("s3_additional_kwargs", {}), **headers}
        return options

    def show_identifiers(self, ids: pl.Series) -> pl.Series:
        """Return what stands for identifiers in quarantine and history: they themselves or, with an
        `identifier_key`, their HMAC-SHA256 as hexadecimal digits.
        """
        key = self._hash_key
        if key is None:
            return ids
        hashes = (id_ and hmac.digest(key, id_.encode(), "sha256").hex() for id_ in ids)
        return pl.Series(hashes, dtype=pl.String)

    @cached_property
    def _hash_key(self) -> bytes | None:
        if self.identifier_key is None:
            return None
        return read_secret(self.identifier_key, f"{self.block_slug}, identifier_key").encode()

    def read_erasure_key(self) -> bytes | None:
        """Return the key of the lake's tombstones; None without one. Raises SecretUnusable."""
        if self.erasure_key is None or not self.erasure_key.get_secret_value():
            return None
        return read_secret(self.erasure_key, f"{self.block_slug}, erasure_key").encode()

    def tombstones(self) -> Tombstones | None:
        """Return who was erased from the lake; None if nobody was.

        Raises ErasureKeyWrong, TombstonesDamaged, SecretUnusable.
        """
        from blocks.storage.tombstones import load_tombstones

        return load_tombstones(self.files, self.read_erasure_key)

    # ---- reading ------------------------------------------------------------------------------

    def runs(self) -> pd.DataFrame:
        """Return a row for each run in the lake, sorted by campaign_id and run_number.

        Further columns are rows, parts, bytes (of the parts), format and written_at. Runs whose
        manifest cannot be read are logged and passed over.
        """
        manifests, problems = reader.list_manifests(self.files)
        for problem in problems:
            self.logger.warning("Skipped: %s", problem)
        names = ["campaign_id", "run_number", "rows", "parts", "bytes", "format", "written_at"]
        rows = [{**dict(each), "parts": len(each.parts)} for each in manifests]
        return pd.DataFrame(rows, columns=names)

    def manifest(self, campaign_id: str, run_number: int) -> Manifest | None:
        """Return what a run consists of; None if the run is not in the lake."""
        return reader.find_manifest(self.files, campaign_id, run_number)

    def read(
        self,
        campaign_id: str,
        run_number: int | None = None,
        kind: Literal["pandas", "arrow", "polars"] = "pandas",
        *,
        verify: bool = False,
    ) -> pd.DataFrame | pa.Table | pl.DataFrame:
        """Return a run's customer_id and message as text; by default of the campaign's newest run.

        With `verify` the run's files are first checked against its manifest.

        Raises LakeError if the run is not in the lake, PartChanged.
        """
        manifest = self._find_run(campaign_id, run_number)
        if verify:
            reader.check_parts(self.files, manifest)
        frame = reader.scan(self.files, manifest).collect()
        if kind == "polars":
            return frame
        table = frame.to_arrow()
        return table if kind == "arrow" else table.to_pandas(types_mapper=pd.ArrowDtype)

    def scan(self, campaign_id: str, run_number: int | None = None) -> pl.LazyFrame:
        """Return the same as `read` as a lazy frame, for runs larger than memory."""
        return reader.scan(self.files, self._find_run(campaign_id, run_number))

    def parts(self, campaign_id: str, run_number: int | None = None) -> list[str]:
        """Return the URLs of a run's files, for engines that read files themselves."""
        run = self._find_run(campaign_id, run_number)
        folder = run_folder(run.campaign_id, run.run_number)
        return [self.files.url(f"{folder}/{part.name}") for part in run.parts]

    def diff(self, campaign_id: str, run_a: int, run_b: int) -> RunDiff:
        """Compare the customers and messages of run_b with those of run_a.

        Raises LakeError if one of the runs is not in the lake, DiskFull.
        """
        from blocks.storage.run_diff import RunDiff

        before, after = (self._find_run(campaign_id, number) for number in (run_a, run_b))
        return RunDiff(
            reader.read_frames(self.files, before), reader.read_frames(self.files, after)
        )

    def inventory(self, snapshot: str | None = None) -> Snapshot:
        """Return the account's campaigns and their runs in a snapshot, the newest by default.

        Raises LakeError if the snapshot is not in the lake.
        """
        from blocks.storage.snapshots import find_newest_snapshot, read_snapshot

        return read_snapshot(self.files, snapshot or find_newest_snapshot(self.files))

    def segments(self, campaign_id: str, run_number: int | None = None) -> pl.DataFrame:
        """Return a run's segments with their messages, by default the newest run's.

        The columns are segment_id, segment (its variables as JSON), message_id, message,
        review_status, approval_stage and archived. Raises SegmentsMissing, SegmentsDamaged.
        """
        from blocks.storage.segments import read_segments

        return read_segments(self.files, self._find_run(campaign_id, run_number), "segments")

    def members(self, campaign_id: str, run_number: int | None = None) -> pl.DataFrame:
        """Return customer_id and segment_id of each customer who has a message in a run, by default
        in the newest one. Raises SegmentsMissing, SegmentsDamaged.
        """
        from blocks.storage.segments import read_segments

        return read_segments(self.files, self._find_run(campaign_id, run_number), "members")

    def sync_runs(self, campaign_id: str | None = None) -> pl.DataFrame:
        """Return a row for each refresh, synchronisation, export and plan, also failed and skipped
        ones: its outcome, counts, durations. Raises HistoryDamaged.
        """
        return read_history(self.files, SYNC_RUNS, campaign_id).sort("started_at", "run_id")

    def sync_changes(self, campaign_id: str | None = None) -> pl.DataFrame:
        """Return a row for each customer that a flow run has added, changed, removed, rejected or
        left out; `run_id` is that of `sync_runs`. Raises HistoryDamaged.
        """
        return read_history(self.files, SYNC_CHANGES, campaign_id)

    def _find_run(self, campaign_id: str, run_number: int | None) -> Manifest:
        if run_number is None:
            newest = reader.find_newest(self.files, campaign_id)
            run_number = newest and newest.run_number
        manifest = None if run_number is None else self.manifest(campaign_id, run_number)
        if manifest is None:
            which = "The latest run" if run_number is None else f"Run {run_number}"
            raise LakeError(f"{which} of campaign {campaign_id} is not in the lake.")
        return manifest
