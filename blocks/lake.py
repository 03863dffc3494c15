"""The data lake: where messages end up, and where lists are staged and quarantined on the way."""

from functools import cached_property
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
from prefect.types import SecretDict
from pydantic import Field

from blocks.saved import SavedBlock, documentation_url
from blocks.storage import reader
from blocks.storage.files import Files, LakeError
from blocks.storage.manifest import Format, Manifest, run_folder
from blocks.storage.part_writer import PartWriter
from blocks.storage.run_diff import RunDiff
from blocks.storage.snapshots import Snapshot, find_newest_snapshot, read_snapshot

Compression = Literal["zstd", "snappy", "lz4", "gzip", "none"]


class DataLake(SavedBlock):
    """
    A folder on any fsspec file system, with the messages of every run that is whole.

    Example:
        ```python
        from blocks import DataLake

        lake = DataLake.load("BLOCK_NAME")
        messages = lake.read("CAMPAIGN_ID")
        ```
    """

    _block_type_name = "Data lake"
    _documentation_url = documentation_url("the-lake")

    root: str = Field(description="Path or fsspec URL of the lake's folder, such as s3://lake/crm.")
    storage_options: SecretDict | None = Field(
        default=None, description="Options of the file system, such as its keys."
    )
    format: Format = Field(
        default="parquet",
        description="Files of the messages. CSV holds the service's own bytes; delta is Parquet "
        "with a Delta table over all runs.",
    )
    compression: Compression = Field(default="zstd", description="Of Parquet files.")
    compression_level: int | None = Field(
        default=1, description="Of Parquet files, for those compressions that have levels."
    )
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, description="Server-side encryption of new files on S3."
    )
    kms_key: str | None = Field(default=None, description="The key's id, for encryption by KMS.")

    @cached_property
    def files(self) -> Files:
        """The lake's folder."""
        return Files(self.root, self.options)

    def part_writer(self, campaign_id: str, run_number: int, writer: str) -> PartWriter:
        """Writes parts of a run in this lake's format."""
        return PartWriter(
            self.files,
            run_folder(campaign_id, run_number),
            writer,
            self.format,
            self.compression,
            self.compression_level if self.compression in ("zstd", "gzip") else None,
        )

    @property
    def options(self) -> dict[str, Any]:
        """The file system's, encryption among them. Keep them secret."""
        options = dict(self.storage_options.get_secret_value()) if self.storage_options else {}
        if self.encryption:
            sealed = {"ServerSideEncryption": self.encryption}
            if self.kms_key:
                sealed["SSEKMSKeyId"] = self.kms_key
            options["s3_additional_kwargs"] = {**options.get("s3_additional_kwargs", {}), **sealed}
        return options

    # ---- reading ------------------------------------------------------------------------------

    def runs(self) -> pd.DataFrame:
        """The runs in the lake: a row each, by campaign_id and run_number, with rows, parts, bytes,
        format and written_at.
        """
        found = reader.list_manifests(self.files)
        names = ["campaign_id", "run_number", "rows", "parts", "bytes", "format", "written_at"]
        rows = [{**dict(one), "parts": len(one.parts)} for one in found]
        return pd.DataFrame(rows, columns=names)

    def manifest(self, campaign_id: str, run_number: int) -> Manifest | None:
        """What a run in the lake is made of; None while it is not there as a whole."""
        return reader.find_manifest(self.files, campaign_id, run_number)

    def read(
        self,
        campaign_id: str,
        run_number: int | None = None,
        kind: Literal["pandas", "arrow", "polars"] = "pandas",
    ) -> pd.DataFrame | pa.Table | pl.DataFrame:
        """A run's messages, the newest run's by default: customer_id and message, as text.

        Raises LakeError if the run is not in the lake.
        """
        frame = self.scan(campaign_id, run_number).collect()
        if kind == "polars":
            return frame
        table = frame.to_arrow()
        return table if kind == "arrow" else table.to_pandas(types_mapper=pd.ArrowDtype)

    def scan(self, campaign_id: str, run_number: int | None = None) -> pl.LazyFrame:
        """Like `read`, for runs larger than memory: nothing is read before it is collected."""
        return reader.scan(self.files, self._run(campaign_id, run_number))

    def parts(self, campaign_id: str, run_number: int | None = None) -> list[str]:
        """The files of a run, for engines that read files themselves."""
        run = self._run(campaign_id, run_number)
        folder = run_folder(run.campaign_id, run.run_number)
        return [self.files.url(f"{folder}/{part.name}") for part in run.parts]

    def diff(self, campaign_id: str, run_a: int, run_b: int) -> RunDiff:
        """Compare the customers and messages of run_b with those of run_a."""
        before, after = (self._run(campaign_id, number) for number in (run_a, run_b))
        return RunDiff(reader.scan(self.files, before), reader.scan(self.files, after))

    def inventory(self, snapshot: str | None = None) -> Snapshot:
        """The account's campaigns and their runs at one time, the newest by default.

        Raises LakeError if the snapshot is not in the lake.
        """
        return read_snapshot(self.files, snapshot or find_newest_snapshot(self.files))

    def _run(self, campaign_id: str, run_number: int | None) -> Manifest:
        if run_number is None:
            run_number = reader.find_latest_run(self.files, campaign_id)
        manifest = None if run_number is None else self.manifest(campaign_id, run_number)
        if manifest is None:
            which = "its latest run" if run_number is None else f"run {run_number}"
            raise LakeError(f"Of campaign {campaign_id}, {which} is not in the lake.")
        return manifest
