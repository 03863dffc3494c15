"""Lists from web servers whose answers are cut, refused or encoded, or ask to wait."""

import gzip
import logging
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiohttp import ClientTimeout
from prefect.types import SecretDict

from blocks import FileCrm, HubSpotCrm
from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.files import http
from nudgescribe.errors import NudgeflowError
from nudgescribe.retry import RetryPolicy
from tests.blocks.crm.saas.hubspot_server import TOKEN, HubSpot
from tests.cases.judging import refused
from tests.support.clock import Clock
from tests.support.http_server import Reply, as_json, serving

HEADER = b"customer_id,plan\n"
ROWS = [b"%06d,gold\n" % number for number in range(1000)]
HALF = HEADER + b"".join(ROWS[:500])
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
SIGNED = SecretDict({"params": {"X-Amz-Signature": "SECRET"}})


def cut_coding() -> bytes:
    """The begin of a gzip stream that happens to end with whole rows, without its end."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(HALF) + packer.flush(zlib.Z_FULL_FLUSH)


OK = b"HTTP/1.1 200 OK\r\n"
RAW = {
    "/identity.csv": OK + b"Transfer-Encoding: identity\r\nConnection: close\r\n\r\n" + HALF,
    "/coded.csv": OK + b"Transfer-Encoding: gzip\r\nConnection: close\r\n\r\n" + HALF,
    "/not-last.csv": OK + b"Transfer-Encoding: chunked, x\r\nConnection: close\r\n\r\n" + HALF,
    "/coded-chunks.csv": OK + b"Transfer-Encoding: x, Chunked\r\n\r\n3\r\na\n1\r\n0\r\n\r\n",
    "/longer.csv": OK + b"Content-Length: 3\r\n\r\n" + HALF,
    "/two-lengths.csv": OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nid\n1\n",
    "/negative.csv": OK + b"Content-Length: -5\r\n\r\nid\n1\n",
    "/long-header.csv": OK + b"X: " + b"x" * 20_000 + b"\r\nContent-Length: 5\r\n\r\nid\n1\n",
    "/ssh.csv": b"SSH-2.0-OpenSSH_9.6\r\n",
    "/nothing.csv": b"",
}
"""Answers from their first byte on."""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in RAW:
            self.wfile.write(RAW[path])
            self.close_connection = True
        elif path == "/silent.csv":
            self.rfile.read(1)  # until the client has gone
        elif path == "/no-length.csv":  # ended by the connection's end alone
            self.answer(200, HALF, length=False, connection="close")
        elif path == "/cut-coding.csv":
            self.answer(200, cut_coding(), content_encoding="gzip")
        elif path == "/list.csv.gz":  # compressed once, and said twice
            body = gzip.compress(HEADER + b"".join(ROWS))
            self.answer(200, body, content_encoding="gzip")
        elif path == "/no-length.csv.gz":
            self.answer(200, gzip.compress(HALF), length=False, connection="close")
        elif path == "/twice.csv.gz":
            body = gzip.compress(gzip.compress(HEADER + b"".join(ROWS)))
            self.answer(200, body, content_encoding="gzip")
        elif path == "/chunked.csv":
            self.answer(
                200,
                b"3\r\nid\n\r\n2\r\n1\n\r\n0\r\n\r\n",
                length=False,
                transfer_encoding="chunked",
            )
        elif path == "/cut-chunk.csv":
            self.answer(
                200, b"3\r\nid\n\r\n2\r\n1\n\r\n", length=False, transfer_encoding="chunked"
            )
        elif path == "/brotli.csv":
            self.answer(200, b"x", content_encoding="br")
        elif path == "/sign-in.csv":
            self.answer(200, b"<!doctype html><html>", content_type="text/html")
        elif path == "/204.csv":
            self.answer(204, b"", length=False)
        elif path == "/409.csv":
            self.answer(409, b'{"code": "ada@example.com"}', retry_after="2")
        elif path == "/429.csv":
            self.answer(429, b"", retry_after="0")
        else:
            self.answer(int(path[1:4]), EXPIRED if path == "/403.csv" else b"")

    def answer(self, status: int, body: bytes, length: bool = True, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_answer_that_may_be_cut_off_is_refused_or_warned_of(
    url: str, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    try:
        FileCrm(path=f"{url}/no-length.csv", storage_options=SIGNED).extract(
            tmp_path / "list.parquet"
        )
        said = [one.getMessage() for one in logged.records if one.levelno >= logging.WARNING]
    except SourceError as error:
        said = [str(error)]
    assert any("no-length.csv" in each for each in said)
    assert "SECRET" not in "".join(said)


@pytest.mark.parametrize("file", ["identity.csv", "coded.csv", "not-last.csv"])
def test_answer_whose_transfer_coding_shows_no_end_is_refused(url: str, file: str) -> None:
    refused(FileCrm(path=f"{url}/{file}"), f"{file} is sent without its length")


def test_answer_whose_coding_is_cut_off_is_refused(url: str) -> None:
    refused(FileCrm(path=f"{url}/cut-coding.csv"), "cut-coding.csv", "cut off")


def test_gzip_file_that_is_sent_as_encoded_is_read(url: str, tmp_path: Path) -> None:
    assert FileCrm(path=f"{url}/list.csv.gz").extract(tmp_path / "list.parquet") == 1000


@pytest.mark.parametrize(("status", "code"), [(401, ""), (403, "AccessDenied"), (410, "")])
def test_refusal_is_told_by_status_and_code_and_without_the_query(
    url: str, status: int, code: str
) -> None:
    said = refused(FileCrm(path=f"{url}/{status}.csv", storage_options=SIGNED), code)
    assert f"{status}" in said.rpartition(".csv")[2]
    assert "ClientResponseError" not in said
    assert "SECRET" not in said


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_retryable(url: str, status: int, tmp_path: Path) -> None:
    with pytest.raises(NudgeflowError) as caught:
        FileCrm(path=f"{url}/{status}.csv", storage_options=SIGNED).extract(
            tmp_path / "list.parquet"
        )
    assert isinstance(caught.value, SourceUnavailable)
    assert f"{status}" in caught.value.problem.rpartition(".csv")[2]
    assert "Try again later" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_answer_that_says_its_end_otherwise_is_read(
    url: str, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "list.parquet"
    assert FileCrm(path=f"{url}/no-length.csv.gz").extract(target) == 500
    warned = {one.name: one.getMessage() for one in logged.records if one.levelname == "WARNING"}
    # The block's logger is the flow run's, within one.
    assert "no-length.csv.gz is sent without its length" in warned["prefect.FileCrm"]
    assert FileCrm(path=f"{url}/twice.csv.gz").extract(target) == 1000
    assert FileCrm(path=f"{url}/chunked.csv").extract(target) == 1
    assert FileCrm(path=f"{url}/coded-chunks.csv").extract(target) == 1


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("cut-chunk.csv", "could not be reached: ClientPayloadError, the connection ended before"),
        ("nothing.csv", "could not be reached: ServerDisconnectedError, the server ended"),
        ("silent.csv", "could not be reached: FSTimeoutError, no answer came in time"),
        ("brotli.csv", "is sent with the coding br"),
        ("sign-in.csv", "is a web page"),
        ("204.csv", "could not be read: the server answered 204"),
        ("409.csv", "could not be reached: the server answered 409[.]"),
    ],
)
def test_answer_that_is_no_list_is_refused(
    url: str, file: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT", ClientTimeout(sock_read=0.3))
    said = refused(FileCrm(path=f"{url}/{file}", storage_options=SIGNED), f"{file} {problem}")
    assert not any(each in said for each in ("SECRET", "ada"))


@pytest.mark.parametrize(
    "file", ["longer.csv", "two-lengths.csv", "negative.csv", "long-header.csv", "ssh.csv"]
)
def test_answer_that_is_no_http_is_no_refusal_of_the_server(
    url: str, file: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceUnavailable, match=f"{file} .*: its answer is no valid HTTP[.]"):
        FileCrm(path=f"{url}/{file}").extract(tmp_path / "list.parquet")


def test_busy_server_is_asked_again_when_it_says(url: str, tmp_path: Path, no_waits: Clock) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        FileCrm(path=f"{url}/409.csv").extract(tmp_path / "list.parquet")
    assert caught.value.retry_after == 2
    assert len(no_waits.slept) == 4
    assert min(no_waits.slept) >= 2


@pytest.mark.parametrize(
    "reply",
    [
        as_json({"status": "error", "category": "MIGRATION_IN_PROGRESS"}, 477, Retry_After="2"),
        as_json({"status": "error", "category": "LOCKED"}, 423),
        Reply(408),
        as_json({"status": "error", "category": "BUSY"}, 409, Retry_After="2"),
        as_json({"status": "error", "category": "BUSY"}, 403, Retry_After="2"),
    ],
    ids=lambda reply: str(reply.status),
)
def test_hubspot_that_asks_to_wait_is_asked_again(
    reply: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(HubSpotCrm, "retry", RetryPolicy(sleep=clock.sleep))
    server = HubSpot(lambda: clock.now)
    with serving(server):
        server.add("12", *[{"email": f"{number}@example.com"} for number in range(5)])
        server.faults["/batch/read"].append(reply)
        crm = HubSpotCrm(token=TOKEN, list_id="12", base_url=server.url, properties=["email"])
        assert crm.extract(tmp_path / "list.parquet") == 5
    assert clock.now > 0
