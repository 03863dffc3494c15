"""Set up the Prefect server of the current profile: block types, blocks, the work pool, limits and
automations. What to set up comes from environment variables; another run updates what differs.
"""

import os
import sys
from collections.abc import Iterator, Mapping

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client

from blocks.documentation import DOCS_URL
from blocks.saved import MAIN
from blocks.sources import ADDED
from deployments import automations, server, settings
from deployments.settings import Settings

NOTIFICATIONS = "nudgeflow"


def bootstrap(environment: Mapping[str, str]) -> Iterator[str]:
    """Create or update everything; yield a line with each outcome, never with a value.

    Raises SettingsWrong or PoolDiffers before anything is changed.
    """
    chosen = settings.read(environment)
    if chosen.docs_url:
        os.environ[DOCS_URL] = str(chosen.docs_url)  # block types are registered with it
    with get_client(sync_client=True) as client:
        server.check_pool(client, chosen.pool_type)
        for kind in (*server.block_types(), *ADDED):
            outcome = server.upsert_block_type(client, kind)
            yield f"block type {kind.get_block_type_slug()}: {outcome}"
        # The account names the limits, so they are created first.
        for limit, slots in {
            server.CALLS: chosen.calls,
            server.DOWNLOADS: chosen.downloads,
        }.items():
            yield f"limit {limit}: {server.upsert_limit(client, limit, slots)}"
        for setting, kind in settings.BLOCKS.items():
            yield _upsert_block(client, setting, kind, getattr(chosen, setting))
        yield f"work pool {server.POOL}: {server.upsert_pool(client, chosen.pool_type)}"
        yield from _upsert_automations(client, chosen)


def _upsert_block(
    client: SyncPrefectClient, setting: str, kind: type[Block], block: Block | None
) -> str:
    label = f"block {kind.get_block_type_slug()}/{MAIN}"
    if block is None:
        return f"{label}: skipped, no {settings.PREFIX}{setting.upper()}_… is set"
    return f"{label}: {server.upsert_block(client, block, MAIN)}"


def _upsert_automations(client: SyncPrefectClient, chosen: Settings) -> Iterator[str]:
    # This block takes any address of Apprise; Prefect has none with a more general name.
    slug = SlackWebhook.get_block_type_slug()
    label = f"block {slug}/{NOTIFICATIONS}"
    if chosen.notify_url:
        block = SlackWebhook(url=chosen.notify_url)
        yield f"{label}: {server.upsert_block(client, block, NOTIFICATIONS)}"
    saved = server.find_block(client, slug, NOTIFICATIONS)
    if saved is None:
        yield f"{label}: missing, so nobody is notified; set {settings.PREFIX}NOTIFY_URL"
    for automation in automations.load(saved and saved.id, chosen.refresh_days):
        outcome = automations.upsert_automation(client, automation)
        yield f"automation {automation.name}: {outcome}"


if __name__ == "__main__":  # a command in version 0.1
    sys.exit("This is `nudgeflow bootstrap` now.")
