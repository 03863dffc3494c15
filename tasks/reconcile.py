"""The proof at the end: group, list and lake hold the same customers."""

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.loading import load
from blocks.manifest import MANIFEST, Manifest
from nudgescribe import rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import RunRef
from tasks.groups import GroupRef
from tasks.policies import READ
from tasks.staging import local_copy
from tasks.validate import Validated

ID = MESSAGE_COLUMNS[0]


class NotReconciled(NudgeflowError):
    advice = "The run was taken out of the lake. Retry this flow run to fetch it again."


@task(**READ)
def reconcile(account: str, group: GroupRef, run: RunRef, validated: Validated, lake: str) -> None:
    """Proves that group, list and lake hold the same customers, each exactly once.

    Raises NotReconciled, saying by how much they differ, and takes the run out of readers' sight.
    """
    with load(NudgescribeAccount, account).get_client() as client:
        total = client.count_customers(group.workspace_id, group.customer_group_id).total
    store = load(DataLake, lake)
    manifest = store.manifest(run.campaign_id, run.run_number)
    if manifest is None:
        raise NotReconciled(f"Run {run.run_number} of campaign {run.campaign_id} has no manifest.")
    found = _customer_ids(store, manifest)
    with local_copy(store, validated.accepted) as accepted:
        wanted = pl.read_parquet(accepted, columns=[validated.key]).rename({validated.key: ID})
    missing = wanted.join(found, on=ID, how="anti").height
    unexpected = found.join(wanted, on=ID, how="anti").height
    repeated = found.height - found[ID].n_unique()
    if missing or unexpected or repeated or not total == manifest.rows == found.height:
        store.remove(f"{store.run_folder(run.campaign_id, run.run_number)}/{MANIFEST}")
        raise NotReconciled(
            f"The group has {total:,} customers, the manifest names {manifest.rows:,}, the lake "
            f"holds {found.height:,} rows: {missing:,} customers are missing, "
            f"{unexpected:,} do not belong there, {repeated:,} are repeated."
        )
    get_run_logger().info("Group, manifest and lake agree on %s customers", f"{total:,}")


def _customer_ids(lake: DataLake, manifest: Manifest) -> pl.DataFrame:
    folder = lake.run_folder(manifest.campaign_id, manifest.run_number)
    ids: list[pl.DataFrame] = []
    with TemporaryDirectory() as place:
        for page in manifest.files:
            part = Path(place) / page.name
            lake.get(f"{folder}/{page.name}", part)
            if manifest.format == "csv":
                with part.open("rb") as file:
                    ids.extend(frame.select(ID) for frame in rfc4180.frames(file))
            else:
                ids.append(pl.read_parquet(part, columns=[ID]))
            part.unlink()
    return pl.concat(ids)
