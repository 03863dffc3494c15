"""Flows that look often: what they wait for is done at once."""

from collections.abc import Iterator

import pytest

from blocks import CampaignRerun
from nudgescribe.retry import PollPolicy
from tasks.export import run

OFTEN = PollPolicy(first_wait=0.02, longest_wait=0.1)


@pytest.fixture(scope="module", autouse=True)
def looks_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "POLL_POLICY", OFTEN)
        patched.setattr(CampaignRerun, "poll_policy", OFTEN)
        yield
