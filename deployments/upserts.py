"""What is to be there on Prefect's server is made, or changed if it is not as it should be."""

from collections.abc import Callable
from typing import Literal, TypeVar

from prefect.exceptions import ObjectNotFound

T = TypeVar("T")

Outcome = Literal["created", "updated", "unchanged"]


def found(read: Callable[[str], T], name: str) -> T | None:
    """What a method of Prefect's client reads by name, None if there is no such thing."""
    try:
        return read(name)
    except ObjectNotFound:
        return None
