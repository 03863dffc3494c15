"""Flows that look often: what they wait for is done at once."""

import pytest

from blocks import CampaignRerun
from nudgescribe.retry import Pace
from tasks.export import run

OFTEN = Pace(first=0.02, longest=0.1)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PACE", OFTEN)
    monkeypatch.setattr(CampaignRerun, "pace", OFTEN)
