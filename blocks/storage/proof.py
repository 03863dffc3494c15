"""Files put into a store that is proved to hold them: by the checksum that it made, or by reading.

Which checksums a store makes it does not say. What counts is what it tells of the object.
"""

from base64 import b64encode
from hashlib import file_digest, md5, sha256
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from fsspec import AbstractFileSystem

from blocks.storage.errors import LakeError
from nudgescribe.errors import Retryable

READ_BYTES = 1024 * 1024
BODIES_AT_ONCE = 2
"""A body that is sent at once is in memory."""
_sending = BoundedSemaphore(BODIES_AT_ONCE)


class StoredOtherwise(LakeError, Retryable):
    """The store holds other bytes than those it was sent."""

    advice = (
        "Nothing was made visible. Retry this flow run; if it stays, the store or what lies "
        "between damages files: check both."
    )


def is_s3(fs: AbstractFileSystem) -> bool:
    """Return whether it is s3fs, without importing s3fs, which a local lake does not need."""
    return hasattr(fs, "call_s3")


def compute_sha256(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def put_proved(fs: AbstractFileSystem, file: Path, target: str, expected: str) -> None:
    """Put a local file with the SHA-256 `expected` into a store that is not on this machine.

    Raises StoredOtherwise.
    """
    if is_s3(fs):
        proved = _put_s3(fs, file, target, expected)
    else:
        fs.put_file(str(file), target)
        proved = False
    if not proved and sha256_in(fs, target) != expected:
        name = target.rpartition("/")[2]
        raise StoredOtherwise(f"The store does not hold {name} as it was sent.")


def sha256_in(fs: AbstractFileSystem, target: str) -> str:
    """Read a file in a store and return its SHA-256 in hexadecimal."""
    digest = sha256()
    with fs.open(target, "rb") as content:
        while block := content.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _put_s3(fs: Any, file: Path, target: str, expected: str) -> bool:
    """Put an object at once; return whether S3 itself has made its SHA-256 or its MD5.

    S3 refuses a body that does not have the checksums it was sent, if it knows them. Only what HEAD
    returns tells that it does.
    """
    bucket, key, _ = fs.split_path(target)
    where = {"Bucket": bucket, "Key": key}
    with _sending:
        body = file.read_bytes()
        checksum = b64encode(bytes.fromhex(expected)).decode()
        digest = md5(body, usedforsecurity=False)
        sums = {"ChecksumSHA256": checksum, "ChecksumAlgorithm": "SHA256"}
        sums |= {"ContentMD5": b64encode(digest.digest()).decode()}
        fs.call_s3("put_object", **where, Body=body, **sums)
    head = fs.call_s3("head_object", **where, ChecksumMode="ENABLED")
    # An ETag is the MD5 of the object unless the store has encrypted it with a key of its own.
    return head.get("ChecksumSHA256") == checksum or (
        head.get("ETag", "").strip('"') == digest.hexdigest()
    )
