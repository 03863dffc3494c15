"""The manifest: the one file that says which pages a run in the lake is made of."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Format = Literal["parquet", "csv"]
MANIFEST = "_manifest.json"


class Page(BaseModel):
    """One part file; `page` is the service's `file_num`, `sha256` that of the file as it lies."""

    model_config = ConfigDict(frozen=True)

    name: str
    page: int
    rows: int
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """Written last: a run without it is not there yet."""

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    run_number: int
    customer_group_id: str
    job_uid: str | None
    format: Format
    files: list[Page]
    rows: int
    bytes: int
    written_at: datetime
    versions: dict[str, str]
