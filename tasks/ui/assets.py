"""Prefect assets for what the flows write; keys are made of block names, not of addresses."""

import re
from typing import Any

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext

from blocks import CrmSource, DataLake, NudgescribeAccount
from blocks.saved import SavedBlock


def messages(lake: DataLake, campaign_id: str) -> Asset:
    """Return the asset of a campaign's messages in a lake."""
    return _asset("lake", lake, "messages", campaign_id, "Messages of a campaign, run by run.")


def plans(lake: DataLake, campaign_id: str) -> Asset:
    """Return the asset of a campaign's plans."""
    return _asset("lake", lake, "plans", campaign_id, "What refreshes of a campaign would do.")


def inventory(lake: DataLake, account: NudgescribeAccount) -> Asset:
    """Return the asset of the snapshots of an account's campaigns and runs."""
    description = "Snapshots of campaigns and their runs."
    return _asset("lake", lake, "campaigns", account.block_name, description)


def group(account: NudgescribeAccount, group_id: str) -> Asset:
    """Return the asset of a customer group at Nudgescribe."""
    return _asset("nudgescribe", account, "groups", group_id, "Customers of a group.")


def campaign(account: NudgescribeAccount, campaign_id: str) -> Asset:
    """Return the asset of a campaign at Nudgescribe."""
    return _asset("nudgescribe", account, "campaigns", campaign_id, "A campaign and its runs.")


def describe(asset: Asset, metadata: dict[str, Any]) -> None:
    """Add metadata to the asset's materialization, if the running task materializes it."""
    context = AssetContext.get()
    if context and asset in context.downstream_assets:
        asset.add_metadata(metadata)


def crm(source: CrmSource) -> Asset:
    """Return the asset of the list that a CRM block reads."""
    name = source.block_name
    key = f"crm://{source.get_block_type_slug()}/lists/{_safe(name)}"
    return Asset(key=key, properties=AssetProperties(name=name, description="A customer list."))


def _asset(kind: str, block: SavedBlock, folder: str, name: str, description: str) -> Asset:
    key = f"{kind}://{block.block_name}/{folder}/{_safe(name)}"
    return Asset(key=key, properties=AssetProperties(name=name, description=description))


def _safe(name: str) -> str:
    """Replace what Prefect's asset keys may not hold; percent signs are among it."""
    return re.sub("[^A-Za-z0-9._~-]", "_", name)
