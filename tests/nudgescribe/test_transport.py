import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from ipaddress import ip_address
from threading import Event
from typing import Any

import httpx
import pytest

from nudgescribe import errors, transport
from nudgescribe.auth import Credentials
from nudgescribe.caching import cache_for_threads
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import AUTH, MESSAGES_FETCH, PUBLISH
from nudgescribe.links import Links
from nudgescribe.retry import RetryPolicy
from nudgescribe.transport import DeadlineExceeded, DeadlineTransport, own_address
from tests.support.exports import Export, downloaded
from tests.support.http_server import Reply, serving

SECONDS = 0.2
ONE = Credentials("a", "b", "c", "d")
FRAMED = Reply(200, headers={"content-length": "1000000"}, dribbles=b" ")
CHUNKED = Reply(200, headers={"transfer-encoding": "chunked"}, framed=False, dribbles=b"1\r\n \r\n")
DRIBBLED = pytest.mark.parametrize("reply", [FRAMED, CHUNKED], ids=["framed", "chunked"])


@pytest.fixture
def export() -> Iterator[Export]:
    with serving(Export([b"customer_id,message\r\n"])) as one:
        one.states.pop(0)
        yield one


@DRIBBLED
@pytest.mark.parametrize("path", [AUTH, PUBLISH])
def test_call_ends_when_body_dribbles(export: Export, path: str, reply: Reply) -> None:
    export.faults[path] = [reply]
    with NudgescribeClient(export.url, ONE, call_seconds=SECONDS) as client:
        with pytest.raises(errors.ConnectionFailed, match="no whole answer within 0.2 seconds"):
            client.publish("C")


def test_page_as_text_ends_when_body_dribbles(export: Export) -> None:
    export.faults[MESSAGES_FETCH] = [FRAMED]
    once = RetryPolicy(attempts=1)
    with NudgescribeClient(export.url, ONE, retry=once, page_seconds=SECONDS) as client:
        with pytest.raises(errors.ConnectionFailed, match="no whole answer within 0.2 seconds"):
            downloaded(client, "C", run_number=1)


@DRIBBLED
def test_download_ends_when_body_dribbles(export: Export, reply: Reply) -> None:
    export.page_faults[0] = [lambda content: reply]
    times = iter(range(0, 1000, 3))
    with Links(httpx.Timeout(60), 10, clock=lambda: next(times)) as links:
        with pytest.raises(
            errors.LinkFailed, match="Page 7 did not lead to a whole page within 10 seconds"
        ) as caught:
            links.download(f"{export.url}/0?signature=secret", BytesIO(), "Page 7")
    assert "secret" not in str(caught.value)


def exchange(times: list[float], **options: Any) -> httpx.Response:
    """A call with two chunks in its body and three in its answer's, each at one of the times."""
    clock = iter(times)

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        return httpx.Response(200, content=iter([b"a", b"b", b"c"]))

    real = httpx.MockTransport(answer)
    deadline = DeadlineTransport(real, 10, clock=lambda: next(clock))
    with httpx.Client(transport=deadline) as client:
        return client.post("http://service", content=iter([b"1", b"2"]), **options)


def test_deadline_holds_when_bodies_are_in_time() -> None:
    assert exchange([0, 1, 2, 3, 4, 10]).content == b"abc"


@pytest.mark.parametrize("times", [[0, 1, 11], [0, 1, 2, 3, 11]], ids=["request", "answer"])
def test_deadline_ends_bodies_that_are_late(times: list[float]) -> None:
    with pytest.raises(DeadlineExceeded, match="within 10 seconds"):
        exchange(times)


def test_deadline_of_request_replaces_that_of_transport() -> None:
    times: list[float] = [0, 1, 2, 3, 4, 70]
    assert exchange(times, extensions={"deadline": 70.0}).content == b"abc"
    with pytest.raises(DeadlineExceeded, match="within 60 seconds"):
        exchange(times, extensions={"deadline": 60.0})


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a service that takes connections, and neither reads nor answers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_sign_in_times_out_when_service_is_silent(silent: str, scheme: str) -> None:
    with NudgescribeClient(f"{scheme}://{silent}", ONE, timeout=SECONDS) as client:
        with pytest.raises(errors.ConnectionFailed, match="got no answer: (Read|Connect)Timeout"):
            client.publish("C")


def test_upload_times_out_when_nobody_reads(silent: str) -> None:
    with NudgescribeClient(f"http://{silent}", ONE, timeout=SECONDS) as client:
        client._http.auth = None  # the body is what counts
        with pytest.raises(errors.ConnectionFailed, match="got no answer: WriteTimeout"):
            client.upload_customers("w", "g", b"x" * 20_000_000)


def test_tls_context_is_built_once_when_threads_begin_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[object] = []
    second = Event()

    def build() -> object:
        built.append(object())
        if len(built) > 1:
            second.set()
        second.wait(0.1)  # long enough for the other threads to begin one too
        return built[-1]

    monkeypatch.setattr(transport, "_build_tls", cache_for_threads(build))
    with ThreadPoolExecutor(4) as pool:
        contexts = {*pool.map(lambda _: transport.tls(), range(4))}
    assert len(built) == len(contexts) == 1


def test_own_address_is_the_one_towards_others_or_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ip_address(own_address())

    def refuse(*arguments: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("nudgescribe.transport.socket", refuse)
    assert own_address() == "127.0.0.1"
