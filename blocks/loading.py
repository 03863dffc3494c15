"""Saved blocks by name."""

from typing import TypeVar

from prefect.blocks.core import Block

from nudgescribe.errors import NudgeflowError

B = TypeVar("B", bound=Block)


class BlockNotFound(NudgeflowError):
    advice = "Look at the saved blocks in the Prefect UI, or save it with `prefect block create`."


def load(kind: type[B], name: str) -> B:
    """The saved block of this name; `type-slug/name` where several types will do.

    Raises BlockNotFound.
    """
    try:
        block = Block.load(name) if "/" in name else kind.load(name)
    except ValueError:
        raise BlockNotFound(f"There is no saved {kind.__name__} block '{name}'.") from None
    if not isinstance(block, kind):
        raise BlockNotFound(f"Block '{name}' is not a {kind.__name__}.")
    return block
