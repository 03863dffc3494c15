"""Makes the Prefect of the current profile ready: block types, saved blocks, work pool, limits and
automations. Set up is what environment variables say; run again, it changes what differs.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from datetime import timedelta

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client

from deployments import automations, server, settings
from nudgescribe.errors import NudgeflowError

NAME = "main"
NOTIFICATIONS = "nudgeflow"


def bootstrap(environment: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for each thing when it is as it should be, never with a value.

    Raises SettingsWrong or PoolDiffers before anything is changed.
    """
    chosen, blocks = settings.read(environment)
    with get_client(sync_client=True) as client:
        server.check_pool(client, chosen.pool_type)
        for kind in server.block_types():
            yield f"block type {kind.get_block_type_slug()}: {server.register(client, kind)}"
        # The account names the limits, so they are there before it is.
        for name, outcome in server.set_limits(chosen.calls, chosen.downloads).items():
            yield f"limit {name}: {outcome}"
        for place, block in blocks.items():
            yield _saved(client, place, block)
        yield f"work pool {server.POOL}: {server.make_pool(client, chosen.pool_type)}"
        yield from _watched(client, chosen)


def _saved(client: SyncPrefectClient, place: str, block: Block | None) -> str:
    slug = settings.BLOCKS[place].get_block_type_slug()
    if block is None:
        return f"block {slug}/{NAME}: left as it is, there is no {settings.PREFIX}{place}_…"
    return f"block {slug}/{NAME}: {server.save(client, block, NAME)}"


def _watched(client: SyncPrefectClient, chosen: settings.Settings) -> Iterator[str]:
    # Any address of Apprise works in this block; Prefect has none of the general name.
    slug = SlackWebhook.get_block_type_slug()
    wanted = automations.crashing()
    if chosen.notify_url:
        block = SlackWebhook(url=chosen.notify_url)
        yield f"block {slug}/{NOTIFICATIONS}: {server.save(client, block, NOTIFICATIONS)}"
    there = server.saved(client, slug, NOTIFICATIONS)
    if there:
        wanted = [*automations.notifying(there.id, timedelta(days=chosen.refresh_days)), *wanted]
    else:
        yield (
            f"block {slug}/{NOTIFICATIONS}: not there, so nobody is notified; set "
            f"{settings.PREFIX}NOTIFY_URL"
        )
    for automation in wanted:
        yield f"automation {automation.name}: {automations.upsert(client, automation)}"


def main() -> None:
    ArgumentParser(prog="python -m deployments.bootstrap", description=__doc__).parse_args()
    try:
        for line in bootstrap(os.environ):
            print(line, flush=True)
    except NudgeflowError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
