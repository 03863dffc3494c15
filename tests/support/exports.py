"""A service with an export that grows, changes or lies: what a healthy one does not show."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from tempfile import TemporaryFile
from typing import Any

import polars as pl

from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGE_COLUMNS
from tests.support.http_server import FakeService, Reply, Request, as_json

FOREVER = 10**9


def page(ids: Sequence[str], columns: Sequence[str] = MESSAGE_COLUMNS) -> bytes:
    """A page with a message to each of these customers."""
    frame = pl.DataFrame([ids, [f"to {one}" for one in ids]], schema=list(columns))
    return rfc4180.write(frame)


Fault = Callable[[bytes], Reply]
"""What becomes of the download of a page with this content."""


def whole(content: bytes) -> Reply:
    return Reply(200, content)


def refused(content: bytes) -> Reply:
    """As after the link's hour."""
    return Reply(403)


def broken_off(content: bytes) -> Reply:
    return Reply(200, content, cut_off=len(content) - 5)


def without_length(content: bytes) -> Reply:
    """Nothing says that the rest is missing."""
    return Reply(200, content[:-3], framed=False)


def another(content: bytes) -> Fault:
    """Some other page's bytes."""
    return lambda _: Reply(200, content)


class Export(FakeService):
    """Shows one state after the other, each a list of pages; a look at the number of pages goes one
    state on, and the last one stays. `page_faults` hold what becomes of a page's next downloads.

    The pages of the run before are put away after `moves` looks. `calls` counts by path, downloads
    as `page N`, texts as `text N`. `answers` hold what is said on other paths.
    """

    def __init__(self, *states: list[bytes], moves: int = 0) -> None:
        super().__init__()
        self.states = [[], *states]
        self.page_faults: dict[int, list[Fault]] = {}
        self.answers: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        self.links_work = True
        self._moves = moves

    @property
    def signatures(self) -> list[str]:
        """Those of the links that were followed, in turn."""
        return [each.query["signature"] for each in self.requests if "signature" in each.query]

    def answer(self, request: Request) -> Reply:
        if not request.path.startswith("/v1/"):
            # An object store must not see the account's headers.
            assert not {"authorization", "x-api-key", "x-auth-context"} & {
                *map(str.lower, request.headers)
            }
            return self.download(request, int(request.path.strip("/")))
        with self.lock:
            self.calls[request.path] += 1
            return as_json(self._said(request.path, json.loads(request.body or b"{}")))

    def _said(self, path: str, body: dict[str, Any]) -> object:
        if path == "/v1/messages/pages":
            return {"num_files": self._count(past="run_number" in body)}
        if path == "/v1/messages/fetch":
            return self._fetched(body["file_num"], body["export_type"])
        tokens = {"access_token": "a", "refresh_token": "r", "token_type": "Bearer"}
        return self.answers.get(path, {**tokens, "expires_in": 3600})

    def _count(self, *, past: bool) -> int:
        if past:
            self.calls["moves"] += 1
            return 2 * (self.calls["moves"] > self._moves)
        if len(self.states) > 1:
            self.states.pop(0)
        return len(self.states[0])

    def _fetched(self, number: int, export_type: str) -> dict[str, str]:
        if export_type == "utf8":
            self.calls[f"text {number}"] += 1
            return {"content": self.states[0][number].decode()}
        signature = f"secret-{self.calls['/v1/messages/fetch']}"
        url = f"{self.url}/{number}?signature={signature}"
        return {"url": url, "expires_at": "2026-11-21T00:00:00Z"}

    def download(self, request: Request, number: int) -> Reply:
        """What a link leads to."""
        with self.lock:
            self.calls[f"page {number}"] += 1
            faults = self.page_faults.get(number)
            fault = faults.pop(0) if faults else whole
        return (fault if self.links_work else refused)(self.states[0][number])


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
