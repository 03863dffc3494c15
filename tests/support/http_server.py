"""A fake of an HTTP service: a real server on this machine that answers as a test wants."""

import json
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes
    client_port: int

    @property
    def call(self) -> str:
        """Method and path, as in "GET /v1/cg"."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Reply:
    """An answer, and what goes wrong with it.

    `dropped`: the connection is closed instead. `cut_off`: it is closed after so many bytes of the
    body. `framed`: whether a content-length is sent. `dribbles`: sent after the body again and
    again, until the client or the test has enough.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    dropped: bool = False
    cut_off: int | None = None
    framed: bool = True
    dribbles: bytes = b""


DROPPED = Reply(dropped=True)


def as_json(body: object, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"content-type": "application/json", **named})


class FakeService(ABC):
    """Answers by `answer`, in threads. `requests` are all it has seen.

    `faults` are replies given instead: a list by the end of a call ("/auth", "GET /v1/cg"), one for
    each such call in turn, None for the real answer. An error of `answer` is raised by `serving`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.faults: dict[str, list[Reply | None]] = defaultdict(list)
        self.failures: list[Exception] = []
        self.lock = threading.Lock()
        self.closed = threading.Event()

    @abstractmethod
    def answer(self, request: Request) -> Reply: ...

    def count(self, ending: str) -> int:
        """Count the calls with this end."""
        return sum(request.call.endswith(ending) for request in self.requests)

    def reply(self, request: Request) -> Reply:
        """Record a request, and answer it or play its fault."""
        with self.lock:
            self.requests.append(request)
            for ending, faults in self.faults.items():
                if request.call.endswith(ending) and faults and (fault := faults.pop(0)):
                    return fault
        try:
            return self.answer(request)
        except Exception as failure:
            self.failures.append(failure)
            return Reply(500)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    service: FakeService

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        port = self.client_address[1]
        reply = self.service.reply(
            Request(self.command, parts.path, query, self.headers, body, port)
        )
        if not reply.dropped:
            self._send(reply)
        if reply.dropped or reply.cut_off is not None or not reply.framed:
            self._hang_up()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.framed and "content-length" not in reply.headers:
            self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: reply.cut_off])
        while reply.dribbles and not self.service.closed.wait(0.01):
            self.wfile.write(reply.dribbles)
            self.wfile.flush()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let clients go before they have all of an answer."""


S = TypeVar("S", bound=FakeService)


@contextmanager
def serving(service: S) -> Iterator[S]:
    """Serve at `service.url`; at the end raise the first error of `answer`, if there was one."""
    handler = type("Handler", (_Handler,), {"service": service})
    with _Server(("127.0.0.1", 0), handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            service.closed.set()
            server.shutdown()
            thread.join()
    for failure in service.failures:
        raise failure
