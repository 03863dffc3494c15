"""What the flows write, as Prefect's assets: named after the blocks, wherever these lead."""

import re
from typing import Any

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext


def messages(lake: str, campaign_id: str) -> Asset:
    """A campaign's messages in a lake."""
    return _asset("lake", lake, "messages", campaign_id, "Messages of a campaign, run by run.")


def plans(lake: str, campaign_id: str) -> Asset:
    """The plans of a campaign's refreshes."""
    return _asset("lake", lake, "plans", campaign_id, "What refreshes of a campaign would do.")


def inventory(lake: str, account: str) -> Asset:
    """The snapshots of an account's campaigns and runs."""
    return _asset("lake", lake, "campaigns", account, "Snapshots of campaigns and their runs.")


def group(account: str, group_id: str) -> Asset:
    """A customer group at Nudgescribe."""
    return _asset("nudgescribe", account, "groups", group_id, "Customers of a group.")


def campaign(account: str, campaign_id: str) -> Asset:
    """A campaign at Nudgescribe."""
    return _asset("nudgescribe", account, "campaigns", campaign_id, "A campaign and its runs.")


def describe(asset: Asset, metadata: dict[str, Any]) -> None:
    """Adds to what Prefect's event says of an asset, if the task that runs has it."""
    context = AssetContext.get()
    if context and asset in context.downstream_assets:
        asset.add_metadata(metadata)


def crm(block: str) -> Asset:
    """What a CRM block reads; its name is its type and its own."""
    kind, _, name = block.partition("/")
    return _asset("crm", kind, "lists", name, "A customer list.")


def _asset(kind: str, block: str, folder: str, name: str, description: str) -> Asset:
    # Prefect takes no percent signs, which an escaped id would have.
    key = f"{kind}://{block}/{folder}/{re.sub('[^A-Za-z0-9._~-]', '_', name)}"
    return Asset(key=key, properties=AssetProperties(name=name, description=description))
