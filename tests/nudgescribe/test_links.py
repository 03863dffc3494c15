"""Pages by their links: what is repeated, what is refused, what is told to whom."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.links import Links
from nudgescribe.retry import RetryPolicy
from tests.support import exports
from tests.support.exports import Export, Fault, broken_off, downloaded, refused
from tests.support.http_server import Reply, serving
from tests.support.response_tamperer import answering

ONE = Credentials("a", "b", "c", "d")
PAGE = exports.page(["01", "02"])


@pytest.fixture
def export() -> Iterator[Export]:
    with serving(Export([PAGE])) as one:
        one.states.pop(0)
        yield one


@pytest.fixture
def client(export: Export) -> Iterator[NudgescribeClient]:
    retry = RetryPolicy(attempts=3, sleep=lambda seconds: None)
    with NudgescribeClient(export.url, ONE, retry=retry) as one:
        yield one


@pytest.mark.parametrize("fault", [refused, broken_off])
def test_page_is_fetched_by_new_link_when_link_breaks(
    export: Export, client: NudgescribeClient, fault: Fault
) -> None:
    export.page_faults[0] = [fault]
    assert downloaded(client, "C") == PAGE
    assert export.calls["page 0"] == 2
    assert len(set(export.signatures)) == 2


def test_pages_are_fetched_as_text_when_links_keep_failing(
    export: Export, client: NudgescribeClient, caplog: pytest.LogCaptureFixture
) -> None:
    export.links_work = False
    assert [downloaded(client, "C") for _ in range(2)] == [PAGE] * 2
    assert (export.calls["page 0"], export.calls["text 0"]) == (3, 2)
    assert "The link of page 0 of campaign C answered 403" in caplog.text
    assert "Pages are fetched as text from here on" in caplog.text


def test_logs_hold_no_signature_of_links(
    export: Export, client: NudgescribeClient, caplog: pytest.LogCaptureFixture
) -> None:
    export.page_faults[0] = [broken_off]
    with caplog.at_level(logging.DEBUG):
        downloaded(client, "C")
    assert "GET /0" in caplog.text
    assert "signature" not in caplog.text


def test_download_error_holds_no_signature_when_store_is_down() -> None:
    links = Links(httpx.Timeout(5), 5)
    for url in ("http://127.0.0.1:1/x?signature=secret", "http://[::1?signature=secret"):
        with pytest.raises(errors.LinkFailed, match="Page 7 broke") as caught:
            links.download(url, BytesIO(), "Page 7")
        assert "signature" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_log_filter_keeps_other_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("httpx").info("%(word)s", {"word": "plain"})
    assert caplog.messages == ["plain"]


def as_text(answer: bytes | str) -> bytes:
    """A page whose text a service answers with."""
    with NudgescribeClient("http://x", ONE, transport=answering(answer)) as client:
        return downloaded(client, "C", run_number=1)


@pytest.mark.parametrize("answer", [b"{}", b'{"content": null}', b"<html>Anna</html>", b""])
def test_page_as_text_fails_without_content(answer: bytes) -> None:
    with pytest.raises(errors.ContractMismatch, match="/v1/messages/fetch holds no content"):
        as_text(answer)


def test_page_as_text_is_exact() -> None:
    text = 'customer_id,message\r\n01,"He said ""é 🙂"",\nand left \\ / \t\u2028"\n'
    assert as_text(json.dumps({"x": 1, "content": text})).decode() == text


def test_calls_and_downloads_go_by_proxy_unless_host_is_exempt(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    export.states = [[PAGE] * 7]
    monkeypatch.setenv("http_proxy", export.url.replace("//", "//name:word@"))
    monkeypatch.setenv("no_proxy", "elsewhere.example")
    once, target = RetryPolicy(attempts=1), BytesIO()
    with NudgescribeClient("http://service.example", ONE, retry=once) as client:
        assert client.count_message_pages("C") == 7
    with NudgescribeClient("http://elsewhere.example", ONE, retry=once) as client:
        with pytest.raises(errors.ConnectionFailed):
            client.count_message_pages("C")
    with Links(httpx.Timeout(5), 5) as links:
        assert links.download("http://store.example/0", target, "Page 0") == len(PAGE)
        assert target.getvalue() == PAGE
        with pytest.raises(errors.LinkFailed):
            links.download("http://elsewhere.example/0", BytesIO(), "Page 0")


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("Mon, 01 Jan 2024 00:00:00 GMT", True),
        ("Mon, 01 Jan 2024 00:00:00 -0000", False),
        ("Mon, 01 Jan 2024 00:00:00", False),
        ("yesterday", False),
    ],
)
def test_time_of_a_page_is_known_with_its_time_zone_only(
    export: Export, client: NudgescribeClient, told: str, known: bool
) -> None:
    export.page_faults[0] = [lambda body: Reply(200, body, {"last-modified": told})]
    at = client.page_written_at("C", 0)
    assert at == (datetime(2024, 1, 1, tzinfo=UTC) if known else None)
