"""Blocks, and their types, on Prefect's server."""

from inspect import isabstract

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument

import blocks
from deployments.upserts import Outcome, found


def block_types() -> list[type[Block]]:
    """All that a person can fill in."""
    mine = [getattr(blocks, name) for name in blocks.__all__]
    return [each for each in mine if Block.is_block_class(each) and not isabstract(each)]


def register(client: SyncPrefectClient, kind: type[Block]) -> Outcome:
    """Makes a block's type known, with the fields it has now."""
    slug = kind.get_block_type_slug()
    there = found(client.read_block_type_by_slug, slug)
    before = there and client.get_most_recent_block_schema_for_block_type(there.id)
    kind.register_type_and_schema()
    if there is None:
        return "created"
    after = client.get_most_recent_block_schema_for_block_type(there.id)
    return "unchanged" if before == after else "updated"


def saved(client: SyncPrefectClient, slug: str, name: str) -> BlockDocument | None:
    """What is saved, secrets and all; None if there is no such block."""
    return found(lambda name: client.read_block_document_by_name(name, slug), name)


def save(client: SyncPrefectClient, block: Block, name: str) -> Outcome:
    """Makes the saved block of this name hold just this."""
    there = saved(client, block.get_block_type_slug(), name)
    data = block.model_dump(
        mode="json", context={"include_secrets": True}, exclude={"block_type_slug"}
    )
    if there and there.data == data:
        return "unchanged"
    block.save(name, overwrite=True)
    return "updated" if there else "created"
