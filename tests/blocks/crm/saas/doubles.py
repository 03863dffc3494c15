"""What the doubles of vendors' services have in common: a real server, and faults to order."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.clock import Clock


class SharedClock(Clock):
    """A clock that threads sleep by."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            super().sleep(seconds)


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes

    @property
    def call(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Reply:
    """`dropped` hangs up instead, `cut_off` after that many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    dropped: bool = False
    cut_off: int | None = None


DROPPED = Reply(dropped=True)


def as_json(body: object, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"content-type": "application/json", **named})


class Double:
    """A service. `faults` are played instead of answers, by the end of the call, in their turn."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.faults: dict[str, list[Reply | None]] = defaultdict(list)
        self.failures: list[Exception] = []
        self.lock = threading.Lock()

    def calls(self, ending: str) -> int:
        return sum(one.call.endswith(ending) for one in self.asked)

    def reply(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            for ending, faults in self.faults.items():
                if asked.call.endswith(ending) and faults and (fault := faults.pop(0)):
                    return fault
            try:
                return self.answer(asked)
            except Exception as failure:
                self.failures.append(failure)
                return Reply(500)

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError


@contextmanager
def serving(double: Double) -> Iterator[None]:
    """The double at its `url`; at the end, what it could not make sense of is raised."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            asked = Asked(self.command, parts.path, query, self.headers, body)
            reply = double.reply(asked)
            if not reply.dropped:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body[: reply.cut_off])
            if reply.dropped or reply.cut_off is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(SHUT_RDWR)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    for failure in double.failures:
        raise failure
