"""Answers that dribble in: no wait is long, and still the call must end."""

import socket
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from time import monotonic

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.links import Links
from nudgescribe.retry import RetryPolicy

SECONDS = 0.25
ONE = Credentials("a", "b", "c", "d")
FRAMED = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"

Serve = Callable[[bytes, bytes], str]


@pytest.fixture
def dribble() -> Iterator[Serve]:
    """Serves connections that get a start at once and then a byte over and over, and nothing of
    what they send is read.
    """
    end = threading.Event()
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def answer(connection: socket.socket, start: bytes, byte: bytes) -> None:
        with connection:
            try:
                connection.sendall(start)
                while byte and not end.wait(0.01):
                    connection.sendall(byte)
                end.wait()
            except OSError:
                pass  # the client has gone

    def listen(listener: socket.socket, start: bytes, byte: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            run(answer, connection, start, byte)

    def run(*call: object) -> None:
        threads.append(threading.Thread(target=call[0], args=call[1:]))  # type: ignore[arg-type]
        threads[-1].start()

    def serve(start: bytes, byte: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listeners.append(listener)
        run(listen, listener, start, byte)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    end.set()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


DRIBBLED = pytest.mark.parametrize(
    ("start", "byte"),
    [
        pytest.param(b"", b"H", id="status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: ", b"x", id="headers"),
        pytest.param(FRAMED, b" ", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3", b"0", id="chunk"),
    ],
)


@DRIBBLED
def test_a_call_ends(dribble: Serve, start: bytes, byte: bytes) -> None:
    began = monotonic()
    with NudgescribeClient(dribble(start, byte), ONE, call_seconds=SECONDS) as client:
        with pytest.raises(errors.ConnectionFailed, match="no whole answer within 0.25 seconds"):
            client.publish("C")
    assert monotonic() - began < 10 * SECONDS


@DRIBBLED
def test_a_download_ends(dribble: Serve, start: bytes, byte: bytes) -> None:
    links, began = Links(httpx.Timeout(60), SECONDS), monotonic()
    with pytest.raises(
        errors.LinkFailed, match="Page 7 did not lead to a whole page within 0.25 seconds"
    ) as caught:
        links.download(f"{dribble(start, byte)}/x?signature=secret", BytesIO(), "Page 7")
    links.close()
    assert monotonic() - began < 10 * SECONDS
    assert "secret" not in str(caught.value)


def test_a_list_that_nobody_reads_is_not_sent_for_ever(dribble: Serve) -> None:
    with NudgescribeClient(dribble(b"", b""), ONE, call_seconds=SECONDS) as client:
        client._http.auth = None  # what counts is the body
        with pytest.raises(errors.ConnectionFailed, match="no whole answer within 0.25 seconds"):
            client.upload_customers("w", "g", b"x" * 20_000_000)


def test_a_handshake_that_never_ends(dribble: Serve) -> None:
    url = dribble(b"", b"").replace("http:", "https:")
    with NudgescribeClient(url, ONE, call_seconds=SECONDS) as client:
        with pytest.raises(errors.ConnectionFailed):
            client.publish("C")


def test_a_call_whose_time_is_over_does_not_connect_again(dribble: Serve) -> None:
    """Signing in has taken all of it."""
    tries = RetryPolicy(attempts=2, sleep=lambda seconds: None)
    with NudgescribeClient(dribble(FRAMED, b" "), ONE, call_seconds=0, retry=tries) as client:
        with pytest.raises(errors.ConnectionFailed, match="within 0 seconds"):
            client.campaigns()
