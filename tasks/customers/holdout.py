"""The holdout: customers who get no message, so that others can be compared with them."""

from __future__ import annotations

import hmac
import re
from contextlib import suppress
from dataclasses import dataclass, field

from prefect import task
from prefect.logging import get_run_logger
from pydantic import ConfigDict, Field, field_validator

from blocks import DataLake
from blocks.secrets import is_reference, read_secret
from blocks.storage.errors import NotInLake
from blocks.storage.files import Files
from blocks.storage.manifest import campaign_partition
from nudgescribe.bases import FrozenInput
from nudgescribe.lazy import pa, parquet, pl
from tasks.campaigns import RunRef
from tasks.customers.staging import Staged, StagingLost, local_copy
from tasks.policies import RETRIED

HOLDOUTS = "holdouts"
HASH_BYTES = 8
KEY_ID = b"holdout_key"
"""Names the key in the metadata of a file of held-out customers."""
_RUN = re.compile(r"run_number=(\d+)")


@dataclass(frozen=True)
class Chooser:
    """Chooses customers by HMAC-SHA256 of their identifiers; those of a smaller share are among
    those of a larger one.
    """

    share: float
    key: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Return what tells the key from others, and not what it is."""
        return hmac.digest(self.key, b"nudgeflow holdout", "sha256").hex()

    def choose(self, ids: pl.Series) -> pl.Series:
        """Return of each identifier whether it is held out."""
        limit = round(self.share * 2 ** (8 * HASH_BYTES))

        def is_held_out(id_: str) -> bool:
            digest = hmac.digest(self.key, id_.encode(), "sha256")
            return int.from_bytes(digest[:HASH_BYTES]) < limit

        return pl.Series(map(is_held_out, ids), dtype=pl.Boolean)


class Holdout(FrozenInput):
    """The share of a list's customers who are left out of the group."""

    model_config = ConfigDict(hide_input_in_errors=True)

    share: float = Field(gt=0, lt=1, description="Share of customers to hold out (0.1 = 10 %).")
    key: str = Field(
        description="Where the key of the hash that chooses them is: env:NAME, file:/PATH or "
        "prefect:BLOCK. They are the same customers as long as the key is the same."
    )

    @field_validator("key")
    @classmethod
    def _is_no_key(cls, key: str) -> str:
        if not is_reference(key) or key.startswith("literal:"):
            raise ValueError(
                "is env:NAME, file:/PATH or prefect:BLOCK, where the key is, and not the key: "
                "parameters are stored in clear"
            )
        return key

    def chooser(self) -> Chooser:
        """Return what chooses the customers. Raises SecretUnusable."""
        return Chooser(self.share, read_secret(self.key, "options.holdout.key").encode())


@task(**RETRIED)
def save_holdout(lake: DataLake, run: RunRef, held_out: Staged) -> None:
    """Write the customers whom a run leaves out to the lake's holdouts. Raises StagingLost if
    nobody has done so while their list was there.
    """
    path = holdout_path(run.campaign_id, run.run_number)
    try:
        with local_copy(lake, held_out) as file:
            lake.files.put(file, path)
    except StagingLost:
        if not lake.files.exists(path):
            raise
    get_run_logger().info("%s customers are held out: %s", f"{held_out.rows:,}", path)


def holdout_path(campaign_id: str, run_number: int) -> str:
    """Return the path of the file of a run's held-out customers."""
    return _path(campaign_partition(campaign_id), run_number)


def holdout_folder(campaign_id: str, run_number: int) -> str:
    """Return the folder of a run's held-out customers."""
    return holdout_path(campaign_id, run_number).rpartition("/")[0]


def find_other_key(files: Files, partition: str, key_id: str) -> int | None:
    """Return the number of the campaign's newest run with a holdout if another key has chosen it;
    None if it was this key, or if nothing tells.
    """
    names = files.list_names(f"{HOLDOUTS}/{partition}")
    numbers = [int(found[1]) for found in map(_RUN.fullmatch, names) if found]
    if not numbers:
        return None
    newest = max(numbers)
    before = None
    with (
        suppress(NotInLake),
        files.open(_path(partition, newest)) as file,
        suppress(pa.ArrowInvalid),
    ):
        before = (parquet.read_metadata(file).metadata or {}).get(KEY_ID)
    return newest if before not in (None, key_id.encode()) else None


def describe_other_key(run_number: int | None) -> str:
    """Return a sentence on a run whose holdout another key has chosen; "" without one."""
    if run_number is None:
        return ""
    return (
        f"The key of the holdout is not that of run {run_number}: other customers are held out, "
        "which is another experiment."
    )


def _path(partition: str, run_number: int) -> str:
    return f"{HOLDOUTS}/{partition}/run_number={run_number}/customers.parquet"
