"""Flows that look often: what they wait for is done at once."""

from collections.abc import Iterator

import pytest

from blocks import CampaignRerun
from nudgescribe.retry import Pace
from tasks.export import run

OFTEN = Pace(first=0.02, longest=0.1)


@pytest.fixture(scope="module", autouse=True)
def looks_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "PACE", OFTEN)
        patched.setattr(CampaignRerun, "pace", OFTEN)
        yield
