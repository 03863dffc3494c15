"""An S3 server in this process, which can be away."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from blocks import DataLake


class Store:
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
    def away(self) -> Iterator[None]:
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
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.stop()
