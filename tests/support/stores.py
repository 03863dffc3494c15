"""S3 stores on this machine: one whose requests can be changed, one that refuses by its bucket, one
that can be away.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
import s3fs
from moto.server import DomainDispatcherApplication, ThreadedMotoServer, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from blocks import DataLake

Options = dict[str, Any]


class Quiet(WSGIRequestHandler):
    def log(self, *arguments: object) -> None: ...


class Store:
    """A store with the bucket `lake`; `change` sees each request first."""

    def __init__(self) -> None:
        self.change: Callable[[dict[str, Any]], object] = lambda request: None
        self.options: Options = {}

    def lake(self, root: str) -> DataLake:
        return DataLake.model_validate({"root": root, "storage_options": self.options})

    def put(self, key: str) -> None:
        """An empty object in the bucket, of any name."""
        s3fs.S3FileSystem(**self.options).call_s3("put_object", Bucket="lake", Key=key, Body=b"")


@contextmanager
def serving() -> Generator[Store]:
    store = Store()
    app = DomainDispatcherApplication(create_backend_app)

    def serve(request: dict[str, Any], start: Any) -> Any:
        store.change(request)
        return app(request, start)

    server = make_server("127.0.0.1", 0, serve, threaded=True, request_handler=Quiet)
    with _running(server):
        store.options = _options(server.port)
        s3fs.S3FileSystem(**store.options).call_s3("create_bucket", Bucket="lake")
        yield store


class Refusal(BaseHTTPRequestHandler):
    """What a bucket refuses with is its name: status and code. A HEAD has no body."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None: ...

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, _, code = self.path.split("/")[1].partition("?")[0].partition("-")
        body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
        self.send_response(int(status))
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815


@contextmanager
def refusing() -> Generator[Options]:
    """The options of the store; `s3://403-AccessDenied` is one of its buckets."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    with _running(server):
        yield _options(server.server_port)


@contextmanager
def s3() -> Generator[str]:
    """The URL of an S3 server. All of a process hold the same, so its buckets are removed."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    fs = s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=url, skip_instance_cache=True)
    before = {*fs.ls("")}
    try:
        yield url
    finally:
        for bucket in {*fs.ls("", refresh=True)} - before:
            fs.rm(bucket, recursive=True)
        server.stop()


class StoppableStore:
    """What it holds stays while it is away."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    @contextmanager
    def away(self) -> Generator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def new_lake(self) -> DataLake:
        """A lake in a bucket of its own, without the library's own patience."""
        bucket = f"lake-{uuid4()}"
        options = {
            "key": "canary-key",
            "secret": "canary-secret",
            "endpoint_url": f"http://127.0.0.1:{self._port}",
            "client_kwargs": {"region_name": "us-east-1"},
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }
        lake = DataLake.model_validate({"root": f"s3://{bucket}/lake", "storage_options": options})
        lake.files.fs.call_s3("create_bucket", Bucket=bucket)
        return lake


@pytest.fixture(scope="session")
def store() -> Generator[StoppableStore]:
    store = StoppableStore()
    yield store
    store.stop()


@contextmanager
def _running(server: Any) -> Generator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _options(port: int) -> Options:
    return {
        "key": "x",
        "secret": "y",
        "token": "z",
        "endpoint_url": f"http://127.0.0.1:{port}",
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 1}, "s3": {"addressing_style": "path"}},
    }
