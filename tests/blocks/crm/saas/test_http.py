import pytest

from blocks.crm.saas import http
from blocks.crm.saas.http import Api
from blocks.crm.source import SourceUnavailable
from tests.support.http_server import FakeService, Reply, Request, serving


class Dribbling(FakeService):
    def answer(self, request: Request) -> Reply:
        return Reply(200, headers={"content-length": "1000000"}, dribbles=b"x")


def test_call_ends_when_body_dribbles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CALL_SECONDS", 0.2)
    with serving(Dribbling()) as service, Api("Vendor", service.url) as api:
        with pytest.raises(SourceUnavailable, match="no answer on a list: not within 0.2 seconds"):
            api.send("GET", "/", "a list")
