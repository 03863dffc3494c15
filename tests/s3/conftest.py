"""A real S3 and, for every test, a bucket of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import s3fs

from blocks import DataLake
from tests.s3.ceph import Server, radosgw


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks this folder's tests; the hook is given all there are."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.s3)


@pytest.fixture(scope="session")
def ceph() -> Iterator[Server]:
    """One S3 server for all tests that need one."""
    with radosgw() as server:
        yield server


@pytest.fixture
def s3(ceph: Server) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(**ceph.storage_options)


@pytest.fixture
def bucket(s3: s3fs.S3FileSystem) -> str:
    """The name of an empty bucket."""
    name = f"test-{uuid4().hex}"
    s3.mkdir(name)
    return name


@pytest.fixture
def lake(ceph: Server, bucket: str) -> DataLake:
    """A lake in a folder of the bucket."""
    return lake_in(f"s3://{bucket}/lake", ceph.storage_options)


def lake_in(root: str, storage_options: dict[str, Any], **settings: Any) -> DataLake:
    return DataLake.model_validate({"root": root, "storage_options": storage_options, **settings})
