"""A group brought to a list by what differs between them, and by nothing else."""

from pathlib import Path

import polars as pl
from prefect.assets import materialize
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import grouped
from blocks.storage.parquet import text_schema, write_parquet
from blocks.storage.scratch import scratch
from nudgescribe.client import NudgescribeClient
from nudgescribe.fields import column
from nudgescribe.polling import poll
from tasks.customers import upload
from tasks.customers.fingerprint import content
from tasks.customers.staging import Staged, batches, local_copy
from tasks.customers.upload import GroupRef, UploadIncomplete, send, settled_size
from tasks.policies import ONCE

CUSTOMERS_HELD = 10_000
"""Customers of a group in memory at a time."""
REMOVED_AT_ONCE = 1000
ADDED, CHANGED, GONE, SAME = "added", "changed", "gone", "same"


class Changes(BaseModel):
    """How many customers a list adds to a group, changes in it, takes from it and leaves as they
    are.
    """

    model_config = ConfigDict(frozen=True)

    added: int
    changed: int
    gone: int
    same: int


@materialize("nudgescribe://groups", **ONCE)
def update_customers(
    account: NudgescribeAccount, group: GroupRef, accepted: Staged, key: str, lake: DataLake
) -> Changes:
    """Makes the group's customers those of the list: upserts the new and the changed ones, deletes
    those who left. Repeated, it finds nothing to do.

    Raises UploadIncomplete if the service refuses a row or the group does not become the list.
    """
    with (
        account.get_client() as client,
        local_copy(lake, accepted) as listed,
    ):
        found = _compared(client, group, listed, key)
        changes = changes_of(found)
        get_run_logger().info("Compared with group %s: %s", group.customer_group_id, changes)
        wanted = found.lazy().filter(pl.col("state").is_in([ADDED, CHANGED]))
        rows = pl.scan_parquet(listed).join(
            wanted, left_on=column(key), right_on="id", how="semi", maintain_order="left"
        )
        total = changes.added + changes.changed
        done = send(client, group, batches(rows, upload.ROWS_SENT), total) if total else True
        gone = found.filter(pl.col("state") == GONE)["id"]
        for some in range(0, len(gone), REMOVED_AT_ONCE):
            ids = gone[some : some + REMOVED_AT_ONCE].to_list()
            client.delete_customers(group.workspace_id, group.customer_group_id, ids)
        settled_size(client, group, accepted.rows)
        if not done:
            _settle(client, group, listed, key)
    return changes


def held_customers(
    client: NudgescribeClient, workspace_id: str, group_id: str, listed: Path, file: Path
) -> None:
    """Writes a group's customers, as the service holds them, to a Parquet file of texts, with the
    columns of the list they are to be compared with.
    """
    columns = pl.scan_parquet(listed).collect_schema().names()
    schema = text_schema(columns)
    customers = grouped(client.customers(workspace_id, group_id), CUSTOMERS_HELD)
    frames = (
        pl.DataFrame(
            {name: [_text(customer.profile.get(name)) for customer in some] for name in columns},
            schema=schema,
        )
        for some in customers
    )
    write_parquet(file, schema, frames)


def compare_lists(listed: Path, held: Path, key: str) -> pl.DataFrame:
    """Every customer of two lists: `id`, and as `state` what the first list does to the second."""
    names = pl.scan_parquet(listed).collect_schema().names()

    def contents(file: Path, name: str) -> pl.LazyFrame:
        return pl.scan_parquet(file).select(column(key).alias("id"), content(names).alias(name))

    listed_, held_ = pl.col("listed"), pl.col("held")
    return (
        contents(listed, "listed")
        .join(contents(held, "held"), on="id", how="full", coalesce=True)
        .select(
            "id",
            pl.when(held_.is_null())
            .then(pl.lit(ADDED))
            .when(listed_.is_null())
            .then(pl.lit(GONE))
            .when(listed_ != held_)
            .then(pl.lit(CHANGED))
            .otherwise(pl.lit(SAME))
            .alias("state"),
        )
        .collect(engine="streaming")
    )


def changes_of(compared: pl.DataFrame) -> Changes:
    counts = dict(compared.group_by("state").len().rows())
    return Changes(**{state: counts.get(state, 0) for state in (ADDED, CHANGED, GONE, SAME)})


def _compared(client: NudgescribeClient, group: GroupRef, listed: Path, key: str) -> pl.DataFrame:
    with scratch("what the service holds") as folder:
        held = folder / "held.parquet"
        held_customers(client, group.workspace_id, group.customer_group_id, listed, held)
        return compare_lists(listed, held, key)


def _settle(client: NudgescribeClient, group: GroupRef, listed: Path, key: str) -> None:
    """Waits for uploads that the service works off in the background."""
    seen = None
    for found in poll(lambda: _compared(client, group, listed, key), upload.SETTLE_SECONDS):
        if (found["state"] == SAME).all():
            return
        seen = changes_of(found)
    assert seen
    raise UploadIncomplete(
        f"Group {group.customer_group_id} has not become the list in "
        f"{upload.SETTLE_SECONDS / 60:g} minutes, last seen: {seen.added:,} customers missing, "
        f"{seen.changed:,} not as in the list, {seen.gone:,} too many."
    )


def _text(value: str | int | float | None) -> str | None:
    return None if value is None else str(value)
