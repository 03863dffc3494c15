"""Translate errors of storage and of disks into ours, with advice.

Libraries word them in their own ways, and some put addresses and keys into the text.
"""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from nudgescribe.errors import NudgeflowError, Retryable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AWAY = {
    errno.EAGAIN,
    errno.EBUSY,  # S3's SlowDown and ServiceUnavailable
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EREMOTEIO,  # S3's InternalError
    errno.ESTALE,
}
_AWAY_NAMES = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "ResponseParserError",
}
"""What lost connections are called by the libraries below; not all of them are installed."""
_LIBRARIES = {"aiobotocore", "aiohttp", "botocore"}


class LakeError(NudgeflowError):
    advice = "Check the lake block's root and its storage options."


class NotInLake(LakeError):
    pass


class LakeUnreachable(LakeError, Retryable):
    advice = "See that the lake's store runs and can be reached, then retry this flow run."


class DiskFull(NudgeflowError):
    advice = "Make room, or let TMPDIR name a larger place for temporary files; then retry."


@contextmanager
def room_for(what: str, place: str) -> Generator[None]:
    """Raises DiskFull if there is none in `place`, a folder of this machine."""
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        raise DiskFull(f"There is no room left in {place} for {what}.") from None


@contextmanager
def lake_trouble(path: str, place: str) -> Generator[None]:
    """Raises LakeUnreachable, LakeError if the lake refuses, or DiskFull, for what is done in the
    block with `path`. That a file is there or not is passed on as it is.
    """
    try:
        with room_for(path, place):
            yield
    except (NudgeflowError, FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        said = code_of(error) or type(error).__name__
        if _is_away(error):
            raise LakeUnreachable(f"The lake was lost at {path}: {said}.") from None
        if isinstance(error, PermissionError) or _library(error) in _LIBRARIES:
            raise LakeError(f"The lake refuses {path}: {said}.") from None
        raise


def code_of(error: Exception) -> str:
    """What an S3 store calls the error, if it does."""
    answer: dict[str, Any] = getattr(error.__cause__, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


def _is_full(error: Exception) -> bool:
    # Polars and Delta have Rust's words only.
    words = any(f"(os error {number})" in str(error) for number in _FULL)
    return words or getattr(error, "errno", None) in _FULL


def _is_away(error: Exception) -> bool:
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in _AWAY
    names = {kind.__name__ for kind in type(error).__mro__}
    return _library(error) in _LIBRARIES and bool(names & _AWAY_NAMES)


def _library(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]
