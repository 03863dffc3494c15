"""Parts are in the store as they were sent: what proves it, and what is said if they are not."""

import io
from base64 import b64encode
from collections.abc import Iterator
from hashlib import md5, sha256
from typing import Any
from uuid import uuid4

import pytest
import s3fs

from blocks import DataLake
from blocks.storage.errors import LakeUnreachable
from blocks.storage.files import Files
from blocks.storage.proof import StoredOtherwise
from nudgescribe.errors import Retryable
from tests.support.lakes import write_run
from tests.support.stores import Store

CONTENT = b"customer_id,message\r\n1,a\r\n"
SHA256 = sha256(CONTENT).hexdigest()


class Watched:
    """A store with a new folder, and the requests about the part in it."""

    def __init__(self, store: Store) -> None:
        self.root = f"s3://lake/{uuid4()}"
        self.files = Files(self.root, store.options)
        self.requests: list[dict[str, Any]] = []
        self.damages = self.knows_no_sha256 = False
        store.change = self.change

    def change(self, request: dict[str, Any]) -> None:
        if "/part" not in request["PATH_INFO"]:
            return
        self.requests.append({**request})
        if request["REQUEST_METHOD"] == "PUT":
            if self.knows_no_sha256:
                for name in [name for name in request if "CHECKSUM" in name]:
                    del request[name]
            if self.damages:
                content = request["wsgi.input"].read(int(request["CONTENT_LENGTH"]))
                request["wsgi.input"] = io.BytesIO(content.replace(b"a", b"b"))

    def asked(self) -> list[str]:
        return [request["REQUEST_METHOD"] for request in self.requests]

    def put(self, expected: str = SHA256) -> None:
        with self.files.translate_errors("part"):
            draft = self.files.draft("part")
            draft.file.write_bytes(CONTENT)
            try:
                draft.publish(sha256=expected)
            finally:
                draft.discard()


@pytest.fixture
def watched(store: Store) -> Iterator[Watched]:
    yield Watched(store)
    store.change = lambda request: None


def test_part_is_put_at_once_with_its_checksums(watched: Watched) -> None:
    watched.put()
    assert watched.asked() == ["PUT", "HEAD"]
    put, head = watched.requests
    assert put["HTTP_X_AMZ_CHECKSUM_SHA256"] == b64encode(bytes.fromhex(SHA256)).decode()
    assert put["HTTP_CONTENT_MD5"] == b64encode(md5(CONTENT).digest()).decode()
    assert head["HTTP_X_AMZ_CHECKSUM_MODE"] == "ENABLED"
    assert watched.files.read("part") == CONTENT


def test_store_without_sha256_proves_part_by_its_md5(watched: Watched) -> None:
    watched.knows_no_sha256 = True
    watched.put()
    assert watched.asked() == ["PUT", "HEAD"]


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Of what HEAD tells of an object these are missing."""
    real = s3fs.S3FileSystem.call_s3

    def call_s3(self: s3fs.S3FileSystem, method: str, **given: Any) -> dict[str, Any]:
        told: dict[str, Any] = real(self, method, **given)
        return {name: value for name, value in told.items() if name not in names}

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", call_s3)


@pytest.mark.parametrize(
    ("missing", "read_back"),
    [(["ChecksumSHA256"], False), (["ETag"], False), (["ChecksumSHA256", "ETag"], True)],
    ids=str,
)
def test_part_is_read_back_only_if_store_tells_no_checksum(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, missing: list[str], read_back: bool
) -> None:
    without(monkeypatch, *missing)
    watched.put()
    assert ("GET" in watched.asked()) is read_back


@pytest.mark.parametrize("told", [True, False])
def test_part_that_was_damaged_on_its_way_is_refused(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    watched.damages = watched.knows_no_sha256 = True
    if not told:
        without(monkeypatch, "ChecksumSHA256", "ETag")
    with pytest.raises((StoredOtherwise, LakeUnreachable)) as caught:
        watched.put()
    assert isinstance(caught.value, Retryable)
    watched.damages = False
    watched.put()
    assert watched.files.read("part") == CONTENT


def test_part_in_store_of_no_checksums_is_read_back() -> None:
    files = Files(f"memory://{uuid4()}", {})
    draft = files.draft("part")
    draft.file.write_bytes(CONTENT)
    with pytest.raises(StoredOtherwise, match="does not hold part as it was sent"):
        draft.publish(sha256="0" * 64)
    draft.publish(sha256=SHA256)
    assert files.read("part") == CONTENT


def test_long_part_is_put_at_once(watched: Watched, store: Store) -> None:
    """Pieces have no checksum of the whole."""
    lake = DataLake.model_validate({"root": watched.root, "storage_options": store.options})
    lake = lake.model_copy(update={"format": "csv"})
    write_run(lake, "C", 1, {f"{number}": "x" * 10**6 for number in range(40)})
    assert watched.asked() == ["PUT", "HEAD"]
    assert lake.read("C", verify=True, kind="polars").shape == (40, 2)
