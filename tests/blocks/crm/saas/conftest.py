"""What a vendor's block does, each room's `crm` making it with the given settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
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
    def extract(**changes: Any) -> pl.DataFrame:
        return read_back(crm(**changes), target)

    return extract


@pytest.fixture
def refusal(crm: Crm, target: Path) -> Refusal:
    """Why it refuses for good."""

    def refusal(**changes: Any) -> str:
        return refused(crm(**changes), target)

    return refusal


@pytest.fixture
def delay(crm: Crm, target: Path) -> Refusal:
    """Why it has to be asked again later."""

    def delay(**changes: Any) -> str:
        return unavailable(crm(**changes), target)

    return delay
