"""The holdout: customers who get no message, so that others can be compared with them."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TypeAlias

from prefect import task
from prefect.logging import get_run_logger
from pydantic import ConfigDict, Field, field_validator

from blocks import DataLake
from blocks.secrets import is_reference, read_secret
from blocks.storage.manifest import campaign_partition
from nudgescribe.bases import FrozenInput
from nudgescribe.lazy import pl
from tasks.campaigns import RunRef
from tasks.customers.staging import Staged, StagingLost, local_copy
from tasks.policies import RETRIED

HOLDOUTS = "holdouts"
HASH_BYTES = 8
Choose: TypeAlias = "Callable[[pl.Series], pl.Series]"
"""Tells of each identifier whether it is held out."""


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

    def chooser(self) -> Choose:
        """Return what chooses customers by HMAC-SHA256 of their identifiers; those of a smaller
        share are among those of a larger one. Raises SecretUnusable.
        """
        key = read_secret(self.key, "options.holdout.key").encode()
        limit = round(self.share * 2 ** (8 * HASH_BYTES))

        def is_held_out(id_: str) -> bool:
            digest = hmac.digest(key, id_.encode(), "sha256")
            return int.from_bytes(digest[:HASH_BYTES]) < limit

        return lambda ids: pl.Series(map(is_held_out, ids), dtype=pl.Boolean)


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
    partition = campaign_partition(campaign_id)
    return f"{HOLDOUTS}/{partition}/run_number={run_number}/customers.parquet"
