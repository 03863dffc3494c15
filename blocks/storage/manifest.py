"""The manifest: the one file that says which pages and files a run in the lake is made of."""

import re
from datetime import datetime
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

Format = Literal["parquet", "csv", "csv.zst", "delta"]
SCHEMA_VERSION = 2
MESSAGES = "messages"
CAMPAIGNS = "campaigns"
RUNS = "runs"
"""Folders of the inventory's snapshots."""
LATEST = "_latest.json"
_MANIFEST = re.compile(r"_manifest-(\d{5})\.json")


class Page(BaseModel):
    """`page` is the service's `file_num`, `bytes` the size of its CSV."""

    model_config = ConfigDict(frozen=True)

    page: int
    rows: int
    bytes: int


class Part(BaseModel):
    """A file of the lake: rows of one or more pages, in their order; `sha256` is that of the file.

    A page longer than a part goes on in the next one, which then names it, too.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pages: list[int]
    rows: int
    bytes: int
    sha256: str


class Batch(BaseModel):
    """Whole pages and the parts that hold just them."""

    model_config = ConfigDict(frozen=True)

    pages: list[Page]
    parts: list[Part]


class Manifest(BaseModel):
    """Written last: a run without it is not there yet. It is never changed; a run that is written
    again gets the next `generation`.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    generation: int
    campaign_id: str
    run_number: int
    customer_group_id: str | None
    job_uid: str | None
    writer: str
    format: Format
    parts: list[Part]
    pages: list[Page]
    rows: int
    bytes: int
    written_at: datetime
    versions: dict[str, str]


class Latest(BaseModel):
    """The newest run of a campaign that is whole, and its manifest, relative to the campaign."""

    model_config = ConfigDict(frozen=True)

    run_number: int
    manifest: str


def campaign_partition(campaign_id: str) -> str:
    """The name of a campaign's folders; ids are opaque, so what a path cannot hold is escaped."""
    return f"campaign_id={quote(campaign_id, safe='')}"


def campaign_folder(campaign_id: str) -> str:
    """Where a campaign's runs lie."""
    return f"{MESSAGES}/{campaign_partition(campaign_id)}"


def run_folder(campaign_id: str, run_number: int) -> str:
    """Where a run's parts and its manifests lie."""
    return f"{campaign_folder(campaign_id)}/run_number={run_number}"


def manifest_name(generation: int) -> str:
    return f"_manifest-{generation:05d}.json"


def generation_of(name: str) -> int | None:
    """The generation a file name of a run's folder stands for; None if it is no manifest."""
    match = _MANIFEST.fullmatch(name)
    return int(match[1]) if match else None
