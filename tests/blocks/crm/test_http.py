"""A vendor's answer that dribbles in."""

import pytest

from blocks.crm.saas import http
from blocks.crm.saas.http import Api
from blocks.crm.source import SourceUnavailable
from tests.nudgescribe.test_deadline import FRAMED, Serve, dribble

__all__ = ["dribble"]


def test_a_call_ends(dribble: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CALL_SECONDS", 0.25)
    with Api("Vendor", dribble(FRAMED, b"x")) as api:
        with pytest.raises(SourceUnavailable, match="no answer on a list: not within 0.25 seconds"):
            api.send("GET", "/", "a list")
