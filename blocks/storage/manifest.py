"""The manifest, which lists the pages and files of a run in the lake, and the names of folders."""

import re
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from nudgescribe.bases import Frozen

Format = Literal["parquet", "csv", "csv.zst", "delta"]
SCHEMA_VERSION = 2
MESSAGES = "messages"
DELTA_LOG = f"{MESSAGES}/_delta_log"
CAMPAIGNS = "campaigns"
RUNS = "runs"
"""Folders of the inventory's snapshots."""
LATEST = "_latest.json"
LONGEST_NAME = 255
"""Bytes of a folder's name on the file systems in use."""
NO_CAMPAIGN = "campaign_id=__HIVE_DEFAULT_PARTITION__"
"""The folder of what belongs to no campaign: readers of partitions take it for null."""
_MANIFEST = re.compile(r"_manifest-(\d{5})\.json")
_RUN = re.compile(r"run_number=(\d+)")
_RUN_FILE = re.compile(
    rf"{MESSAGES}/campaign_id=[^/]+/run_number=\d+/(_manifest-\d{{5}}\.json|part-[^/]+)"
)


class Page(Frozen):
    """A page of an export: `page` is the service's `file_num`, `bytes` the size of its CSV.

    `rows` are in the lake; as many more as are `erased` were left out or taken out.
    """

    page: int
    rows: int
    bytes: int
    erased: int = 0


class Part(Frozen):
    """A file of the lake with the rows of one or more pages, in their order.

    A page that does not fit continues in the next part; `pages` of both name it. `sha256` is the
    file's, in hexadecimal.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    pages: list[int]
    rows: int
    bytes: int
    sha256: str


class Batch(Frozen):
    """Whole pages, and the parts that hold these pages and no others, in the order of rows."""

    pages: list[Page]
    parts: list[Part]


class Manifest(Frozen):
    """The parts and pages of a run. It is written last: a run without it is not in the lake.

    It is never changed; a run that is written again gets the next `generation`. `bytes` is the
    size of all parts.
    """

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

    @property
    def erased(self) -> int:
        """Return how many rows of the service the run lacks, for their customers were erased."""
        return sum(page.erased for page in self.pages)


class Latest(Frozen):
    """A campaign's newest run in the lake; `manifest` is relative to the campaign's folder."""

    run_number: int
    manifest: str


def campaign_partition(campaign_id: str) -> str:
    """Return the name of a campaign's folders, with its ID percent-encoded.

    If the name is longer than LONGEST_NAME, its end is replaced by `+` and the ID's hash.
    """
    if len(name := _partition(campaign_id)) <= LONGEST_NAME:
        return name
    end = f"+{sha256(campaign_id.encode()).hexdigest()[:32]}"
    # Whole characters only: readers decode the name.
    starts = (_partition(campaign_id[:length]) + end for length in range(LONGEST_NAME, 0, -1))
    return next(start for start in starts if len(start) <= LONGEST_NAME)


def _partition(campaign_id: str) -> str:
    return f"campaign_id={quote(campaign_id, safe='')}"


def campaign_folder(campaign_id: str) -> str:
    """Return the folder of a campaign's runs."""
    return f"{MESSAGES}/{campaign_partition(campaign_id)}"


def run_folder(campaign_id: str, run_number: int) -> str:
    """Return the folder of a run's parts and manifests."""
    return f"{campaign_folder(campaign_id)}/run_number={run_number}"


def run_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the runs among the names in a campaign's folder, the highest first."""
    return sorted((int(match[1]) for match in map(_RUN.fullmatch, names) if match), reverse=True)


def is_of_a_run(path: str) -> bool:
    """Return whether a path is one of a run's manifest or part."""
    return _RUN_FILE.fullmatch(path) is not None


def manifest_name(generation: int) -> str:
    """Return the file name of a run's manifest of this generation."""
    return f"_manifest-{generation:05d}.json"


def parse_generation(name: str) -> int | None:
    """Return the generation in a manifest's file name; None for other names."""
    match = _MANIFEST.fullmatch(name)
    return int(match[1]) if match else None
