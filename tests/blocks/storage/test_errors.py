"""What is told of a store or a disk that refuses, and what another try may mend."""

import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from botocore.exceptions import ClientError, SSLError
from polars.exceptions import ComputeError
from pyarrow.lib import ArrowInvalid

from blocks import FileCrm
from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.storage.errors import (
    LakeError,
    LakeUnreachable,
    StoreUnusable,
    Unexpected,
    translate_lake_errors,
)
from blocks.storage.files import Files, InTheWay
from tests.support import stores

CALLS: dict[str, Callable[[Files, Path], object]] = {
    "exists": lambda files, there: files.exists("x"),
    "read": lambda files, there: files.read("x"),
    "open": lambda files, there: files.open("x").__enter__(),
    "remove": lambda files, there: files.remove("x"),
    "names": lambda files, there: files.list_names("x"),
    "files": lambda files, there: list(files.list_files("x")),
    "write": lambda files, there: files.write("x", b"1"),
    "create": lambda files, there: files.create("x", b"1"),
    "get": lambda files, there: files.get("x", there),
}


@pytest.fixture(scope="module")
def refusing() -> Iterator[stores.Options]:
    with stores.refusing() as options, pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.core.S3FileSystem, "retries", 1)
        yield options


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("answer", "retryable", "said"),
    [
        ("400-ExpiredToken", False, "token (may have|has) expired"),
        ("400-AuthorizationHeaderMalformed", False, "region"),
        ("301-PermanentRedirect", False, "region"),
        ("403-RequestTimeTooSkewed", False, "clock is"),
        ("403-AccessDenied", False, "keys may not"),
        ("403-SignatureDoesNotMatch", False, "wrong"),
        ("400-Odd", False, "Odd|400"),
        ("429-TooManyRequests", True, "TooManyRequests|429"),
        ("503-SlowDown", True, "SlowDown|503"),
        ("500-InternalError", True, "InternalError|500"),
    ],
)
def test_refusal_of_s3_is_told_by_its_code(
    refusing: stores.Options, call: str, answer: str, retryable: bool, said: str, tmp_path: Path
) -> None:
    with pytest.raises(LakeError, match=said) as caught:
        CALLS[call](Files(f"s3://{answer}/lake", refusing), tmp_path / "x")
    assert isinstance(caught.value, LakeUnreachable) is retryable


@pytest.mark.parametrize("code", ["ThrottlingException", "RequestTimeout", "OperationAborted"])
def test_refusal_for_the_moment_is_retryable(refusing: stores.Options, code: str) -> None:
    with pytest.raises(LakeUnreachable, match=code):
        Files(f"s3://400-{code}/lake", refusing).write("x", b"1")


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ("403-RequestTimeTooSkewed", SourceError, "clock"),
        ("400-AuthorizationHeaderMalformed", SourceError, "region"),
        ("429-TooManyRequests", SourceUnavailable, "TooManyRequests"),
    ],
)
def test_refusal_of_list_is_told_by_its_code(
    refusing: stores.Options, answer: str, kind: type, said: str, tmp_path: Path
) -> None:
    fields = {"path": f"s3://{answer}/x.csv", "storage_options": refusing}
    with pytest.raises(SourceError, match=said) as caught:
        FileCrm.model_validate(fields).extract(tmp_path / "list.parquet")
    assert type(caught.value) is kind


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"exists", "open", "get"}))
def test_missing_bucket_is_no_empty_lake(store: stores.Store, call: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="NoSuchBucket, there is no such bucket"):
        CALLS[call](store.lake("s3://typo/lake").files, tmp_path / "x")


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("nofs://lake", "ValueError"),
        ("dropbox://lake", "dropbox"),
        ("s3://My Bucket/lake", "ParamValidationError"),
    ],
)
def test_root_that_cannot_be_used_is_told(root: str, said: str) -> None:
    with pytest.raises(LakeError, match=said):
        Files(root, {"anon": True}).list_names("")


@pytest.mark.parametrize(
    ("call", "path", "said"),
    [
        ("read", "folder", "Is a directory"),
        ("open", "folder", "Is a directory"),
        ("get", "folder", "Is a directory"),
        ("read", "file/x", "Not a directory"),
        ("exists", "x" * 256, "File name too long"),
        ("write", "x" * 256, "File name too long"),
        ("write", "forbidden", "Permission denied"),
    ],
)
def test_refusal_of_disk_is_told(
    call: str, path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(str(tmp_path), {})
    files.write("file", b"")
    files.write("folder/x", b"")
    replace = os.replace

    def refuse(source: Path, target: str) -> None:  # nothing is forbidden to root
        if target.endswith("forbidden"):
            raise PermissionError(errno.EACCES, "x")
        replace(source, target)

    monkeypatch.setattr("blocks.storage.files.os.replace", refuse)
    calls = {
        "exists": lambda: files.exists(path),
        "read": lambda: files.read(path),
        "open": lambda: files.open(path).__enter__(),
        "get": lambda: files.get(path, tmp_path / "copy"),
        "write": lambda: files.write(path, b""),
        "create": lambda: files.create(path, b""),
    }
    with pytest.raises(LakeError, match=f"refuses {path}: {said}"):
        calls[call]()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("folder", "lake/folder is a folder where a file belongs. .*move it away"),
        ("file/x", "lake/file is a file where a folder belongs. .*move it away"),
        ("file/x/y", "lake/file is a file where a folder belongs"),
    ],
)
def test_what_is_in_the_way_is_named(path: str, said: str, tmp_path: Path) -> None:
    files = Files(str(tmp_path / "lake"), {})
    files.write("file", b"")
    files.write("folder/x", b"")
    with pytest.raises(InTheWay, match=said):
        files.write(path, b"")
    if path != "folder":
        with pytest.raises(InTheWay, match=said):
            files.create(path, b"")


def of_s3(code: str, status: int = 400) -> OSError:
    """As s3fs raises it."""
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError(errno.EIO, "canary")
    error.__cause__ = ClientError(answer, "PutObject")
    return error


def untrusted() -> SSLError:
    """As botocore raises it."""
    error = SSLError(endpoint_url="https://canary", error="canary")
    error.__cause__ = ssl.SSLCertVerificationError(1, "canary")
    return error


class Answered(Exception):
    """As libraries of other stores raise it."""

    def __init__(self, code: int) -> None:
        super().__init__("canary")
        self.code = code


@pytest.mark.parametrize(
    ("error", "retryable", "said"),
    [
        (of_s3("RequestExpired"), False, "RequestExpired, the token has expired, or .*clock"),
        (ssl.SSLCertVerificationError(1, "canary"), False, "certificate is not trusted"),
        (untrusted(), False, "SSLCertVerificationError, its certificate is not trusted"),
        (ssl.SSLEOFError(8, "canary"), False, "SSLEOFError"),
        (socket.gaierror(-2, "canary"), True, "gaierror"),
        (OSError("Forbidden, canary"), False, "OSError"),
        (PermissionError("canary"), False, "PermissionError, these keys may not do that"),
        (Answered(503), True, "Answered"),
        (Answered(403), False, "Answered"),
    ],
    ids=repr,
)
def test_error_of_any_library_is_told_without_its_text(
    error: Exception, retryable: bool, said: str
) -> None:
    with pytest.raises(LakeError, match=said) as caught, translate_lake_errors("a/file", "/tmp"):
        raise error
    assert type(caught.value) is (LakeUnreachable if retryable else LakeError)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [TypeError("canary"), KeyError("canary"), ComputeError("canary"), ArrowInvalid("canary")],
    ids=repr,
)
def test_fault_of_what_is_written_does_not_blame_the_lake(tmp_path: Path, error: Exception) -> None:
    files = Files(str(tmp_path), {})
    told = rf"Work on a/file stopped: {type(error).__name__} at test_errors.py:\d+.*report it"
    with pytest.raises(Unexpected, match=told) as caught, files.new_file("a/file"):
        raise error
    assert "canary" not in str(caught.value)
    assert "storage options" not in str(caught.value)
    assert not files.exists("a/file")


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "minio:9000"},
        {"acess_key": "canary"},
        {"client_kwargs": {"region": "eu"}},
        {"config_kwargs": {"canary": 1}},
        {"key": 5},
    ],
    ids=str,
)
def test_mistyped_option_is_an_error_of_the_lake(options: dict[str, Any]) -> None:
    given = {"key": "k", "secret": "canary", "endpoint_url": "http://127.0.0.1:9", **options}
    with pytest.raises(LakeError, match="storage_options may be mistyped") as caught:
        Files("s3://lake/crm", given).create("a/b", b"x")
    assert "canary" not in str(caught.value)
