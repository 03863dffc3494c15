"""A service with an export that grows, changes or lies: what a healthy one does not show."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tempfile import TemporaryFile
from typing import Any, TypeVar
from urllib.parse import urlsplit

import polars as pl

from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGE_COLUMNS

FOREVER = 10**9


def page(ids: Sequence[str], columns: Sequence[str] = MESSAGE_COLUMNS) -> bytes:
    """A page with a message to each of these customers."""
    frame = pl.DataFrame([ids, [f"to {one}" for one in ids]], schema=list(columns))
    return rfc4180.write(frame)


Fault = Callable[["Call", bytes], None]


class Export:
    """Shows one state after the other, each a list of pages; a look at the number of pages goes one
    state on, and the last one stays. `faults` hold what becomes of a page's next downloads.

    The pages of the run before are put away after `moves` looks. `calls` counts by path, downloads
    as `page N`, texts as `text N`. `answers` hold what is said on other paths.
    """

    def __init__(self, *states: list[bytes], moves: int = 0) -> None:
        self.states = [[], *states]
        self.faults: dict[int, list[Fault]] = {}
        self.answers: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        self.queries: list[str] = []
        self.url = ""
        self.links_work = True
        self._moves = moves
        self._lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the API says."""
        with self._lock:
            self.calls[path] += 1
            if path == "/v1/messages/pages":
                if "run_number" in body:
                    moved = self.calls["moves"] >= self._moves
                    self.calls["moves"] += 1
                    return {"num_files": 2 * moved}
                if len(self.states) > 1:
                    self.states.pop(0)
                return {"num_files": len(self.states[0])}
            if path == "/v1/messages/fetch":
                number = body["file_num"]
                if body["export_type"] == "utf8":
                    self.calls[f"text {number}"] += 1
                    return {"content": self.states[0][number].decode()}
                query = f"signature=secret-{self.calls[path]}"
                self.queries.append(query)
                return {"url": f"{self.url}/{number}?{query}", "expires_at": "2026-11-21T00:00:00Z"}
        tokens = {"access_token": "a", "refresh_token": "r", "token_type": "Bearer"}
        return self.answers.get(path, {**tokens, "expires_in": 3600})

    def download(self, call: "Call", number: int) -> None:
        """What a link leads to."""
        with self._lock:
            self.calls[f"page {number}"] += 1
            faults = self.faults.get(number)
            fault = faults.pop(0) if faults else whole
        (fault if self.links_work else refused)(call, self.states[0][number])


class Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    export: Export

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        self.reply(200, json.dumps(self.export.answer(self.path, body)).encode())

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/v1/"):
            self.reply(200, json.dumps(self.export.answer(path, {})).encode())
            return
        # An object store must not see the account's headers.
        assert not {"authorization", "x-api-key", "x-auth-context"} & {
            *map(str.lower, self.headers)
        }
        self.export.download(self, int(path.strip("/")))

    def reply(self, status: int, content: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def whole(call: Call, content: bytes) -> None:
    call.reply(200, content)


def refused(call: Call, content: bytes) -> None:
    """As after the link's hour."""
    call.reply(403, b"")


def broken_off(call: Call, content: bytes) -> None:
    call.reply(200, content[:-5], len(content))
    call.close_connection = True


def without_length(call: Call, content: bytes) -> None:
    """Nothing says that the rest is missing."""
    call.send_response(200)
    call.send_header("connection", "close")
    call.end_headers()
    call.wfile.write(content[:-3])
    call.close_connection = True


def another(content: bytes) -> Fault:
    """Some other page's bytes."""
    return lambda call, _: call.reply(200, content)


E = TypeVar("E", bound=Export)


@contextmanager
def serving(export: E) -> Iterator[E]:
    handler = type("Handler", (Call,), {"export": export})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        export.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield export
        finally:
            server.shutdown()
            thread.join()


def downloaded(
    client: NudgescribeClient, campaign_id: str, number: int = 0, run_number: int | None = None
) -> bytes:
    """A page, as the client downloads it."""
    with TemporaryFile() as file:
        size = client.download_page(campaign_id, number, file, run_number)
        file.seek(0)
        content = file.read()
    assert size == len(content)
    return content
