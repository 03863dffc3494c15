"""What a vendor's block does, each room's `crm` making it with the given settings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blocks import CrmSource
from tests.blocks.crm.extracting import Extract, Refusal, read_back, refused, unavailable
from tests.support.clock import Clock

Crm = Callable[..., CrmSource]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def extract(crm: Crm, target: Path) -> Extract:
    return lambda **changes: read_back(crm(**changes), target)


@pytest.fixture
def refusal(crm: Crm, target: Path) -> Refusal:
    """Why it refuses for good."""
    return lambda **changes: refused(crm(**changes), target)


@pytest.fixture
def delay(crm: Crm, target: Path) -> Refusal:
    """Why it has to be asked again later."""
    return lambda **changes: unavailable(crm(**changes), target)
