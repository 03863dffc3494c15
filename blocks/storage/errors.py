"""Errors of storage: the lake cannot be reached, a file is missing, a disk is full."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from nudgescribe.errors import NudgeflowError, Retryable

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRANSIENT_NUMBERS = {
    errno.EAGAIN,
    errno.EBUSY,  # S3's SlowDown and ServiceUnavailable
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EREMOTEIO,  # S3's InternalError
    errno.ESTALE,
}
_TRANSIENT_CLASSES = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "ResponseParserError",
    "ServiceRequestError",
    "Timeout",
    "TimeoutError",
    "gaierror",
}
_S3_LIBRARIES = {"aiobotocore", "aiohttp", "botocore"}


class LakeError(NudgeflowError):
    advice = "Check the lake block's root and its storage options."


class NotInLake(LakeError):
    pass


class LakeUnreachable(LakeError, Retryable):
    advice = "See that the lake's store runs and can be reached, then retry this flow run."


class DiskFull(NudgeflowError):
    advice = "Make room, or let TMPDIR name a larger place for temporary files; then retry."


@contextmanager
def translate_disk_full(purpose: str, folder: str) -> Generator[None]:
    """Raise DiskFull where the block finds no room in `folder` for what it writes."""
    try:
        yield
    except Exception as error:
        if not _is_disk_full(error):
            raise
        raise DiskFull(f"There is no room left in {folder} for {purpose}.") from None


@contextmanager
def translate_lake_errors(path: str, folder: str) -> Generator[None]:
    """Translate the errors of work on the lake's `path`; local files are written in `folder`.

    FileNotFoundError and FileExistsError pass unchanged. The texts of the libraries are left out:
    some of them hold addresses and keys.

    Raises LakeUnreachable if another try may succeed, LakeError if the lake refuses, DiskFull.
    """
    try:
        with translate_disk_full(path, folder):
            yield
    except (NudgeflowError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        reason = s3_error_code(error) or type(error).__name__
        if is_transient_storage_error(error):
            raise LakeUnreachable(f"The lake was lost at {path}: {reason}.") from None
        if isinstance(error, PermissionError) or _is_of_s3(error):
            raise LakeError(f"The lake refuses {path}: {reason}.") from None
        raise


def is_transient_storage_error(error: Exception) -> bool:
    """Return whether another try may succeed: the storage is busy or out of reach.

    Classes are known by name: each file system has its own HTTP library, and few are installed.
    """
    classes = {each.__name__ for each in type(error).__mro__}
    status: object = getattr(error, "status", None)
    return (
        bool(classes & _TRANSIENT_CLASSES)
        or getattr(error, "errno", None) in _TRANSIENT_NUMBERS
        or (isinstance(status, int) and status >= 500)
    )


def s3_error_code(error: Exception) -> str:
    """Return the code of an S3 store's answer, such as SlowDown; empty for other errors."""
    answer: dict[str, Any] = getattr(error.__cause__, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


def _is_disk_full(error: Exception) -> bool:
    # Polars and Delta pass on Rust's text without its number.
    in_text = any(f"(os error {number})" in str(error) for number in _DISK_FULL)
    return in_text or getattr(error, "errno", None) in _DISK_FULL


def _is_of_s3(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in _S3_LIBRARIES
