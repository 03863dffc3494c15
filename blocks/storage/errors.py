"""Errors of storage: the lake cannot be reached or refuses, a file is missing, a disk is full."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, Self, cast

from nudgescribe.errors import NudgeflowError, Retryable

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRANSIENT_NUMBERS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ESTALE,
}
_FAULTS = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
_TRANSIENT_STATUSES = {408, 425, 429}
_TRANSIENT_CODES = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "XAmzContentSHA256Mismatch",
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
_CODE = re.compile(r"[\w.-]{1,80}")
_NO_BUCKET = "NoSuchBucket"
_EXPIRED = "the token has expired, storage_options need a new one"
_REGION = "the region or the endpoint_url is wrong, see region_name in client_kwargs"
_KEYS = "the key or the secret is wrong"
_FORBIDDEN = "these keys may not do that"
_FULL = "the store has no room left"
_MISTYPED = "a name or a value in storage_options may be mistyped"
_UNTRUSTED = "its certificate is not trusted on this machine, or is for another host"
_MEANINGS = {
    "301": _REGION,
    "400": "the token may have expired, or the region be wrong",
    "403": f"{_FORBIDDEN}, or are wrong, or this machine's clock is",
    "AccessDenied": _FORBIDDEN,
    "AllAccessDisabled": _FORBIDDEN,
    "AttributeError": _MISTYPED,
    "AuthorizationHeaderMalformed": _REGION,
    "ClientPayloadError": "the connection ended before all had arrived",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "FSTimeoutError": "no answer came in time",
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _KEYS,
    "InvalidObjectState": "it has been archived and must be restored first",
    "InvalidToken": "the token is wrong",
    "KeyError": _MISTYPED,
    "NoCredentialsError": "there is no key",
    _NO_BUCKET: "there is no such bucket",
    "PermanentRedirect": _REGION,
    "PermissionError": _FORBIDDEN,
    "QuotaExceeded": _FULL,
    "RecursionError": _REGION,  # redirected for ever, to https for instance
    "RequestExpired": "the token has expired, or this machine's clock is wrong",
    "RequestTimeTooSkewed": "this machine's clock is wrong, set it",
    "ServerDisconnectedError": "the server ended the connection without an answer",
    "SSLCertVerificationError": _UNTRUSTED,
    "SignatureDoesNotMatch": _KEYS,
    "TokenRefreshRequired": _EXPIRED,
    "TypeError": _MISTYPED,
    "ValueError": _MISTYPED,
    "XMinioStorageFull": _FULL,
}
_OF_THE_STORE = {
    *(_EXPIRED, _REGION, _KEYS),
    *(_MEANINGS[code] for code in (_NO_BUCKET, "NoCredentialsError", "InvalidToken")),
}


class LakeError(NudgeflowError):
    """The lake refuses what is asked of it, or lacks what is needed."""

    advice = "Check the lake block's root and its storage options."


class NotInLake(LakeError):
    """The lake has no file of this path."""


class StoreUnusable(LakeError):
    """The lake's store cannot be used as the lake block says, whichever file is asked for."""


class LakeUnreachable(LakeError, Retryable):
    """The lake's store cannot be reached, or is busy."""

    advice = "See that the lake's store runs and can be reached, then retry this flow run."


class Damaged(LakeError):
    """Base of the errors about a file of ours that is no longer what it was."""

    advice = ""

    @classmethod
    def at(cls, path: str) -> Self:
        """Return the error about a file; its content, which libraries quote, is left out."""
        return cls(f"{path} is empty, cut off or damaged.")


class TooNew(LakeError):
    """A later version of Nudgeflow has written a file of ours."""

    advice = "Another worker has a newer version of Nudgeflow: update this one, then try again."


class Unexpected(LakeError):
    """Work on a file of the lake met an error that is neither the store's nor the disk's."""

    advice = (
        "Retry this flow run. If it stays, it is a fault of Nudgeflow or of a library: report it "
        "with this line."
    )


class DiskFull(NudgeflowError):
    """A disk has no room left."""

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

    The texts of the libraries are left out: some of them hold addresses and keys.

    Raises NotInLake, LakeUnreachable if another try may succeed, StoreUnusable, DiskFull,
    Unexpected if the block itself is at fault, LakeError in all other cases.
    """
    try:
        with translate_disk_full(path, folder):
            yield
    except NudgeflowError:
        raise
    except Exception as error:
        if is_missing(error):
            raise NotInLake(f"{path} is not in the lake.") from None
        reason = describe_storage_error(error)
        if is_transient_storage_error(error):
            raise LakeUnreachable(f"The lake could not be reached at {path}: {reason}.") from None
        if _is_fault(error):
            met = f"{type(error).__name__} at {_line(error)}"
            raise Unexpected(f"Work on {path} stopped: {met}.") from None
        of_the_store = reason.partition(", ")[2] in _OF_THE_STORE
        refusal = StoreUnusable if of_the_store else LakeError
        raise refusal(f"The lake refuses {path}: {reason}.") from None


def _is_fault(error: Exception) -> bool:
    """Return whether an error is one of the code that works on a file, not one of its store."""
    if isinstance(error, OSError):
        return False
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    if any(module.startswith("fsspec.") for module in modules):
        return False  # what is mistyped in storage_options shows at the first use
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, _FAULTS) or library in ("polars", "pyarrow")


def _line(error: Exception) -> str:
    """Return the last line before a library's that met an error, such as runs.py:12."""
    lines = [
        f"{Path(frame.f_code.co_filename).name}:{number}"
        for frame, number in walk_tb(error.__traceback__)
        if "site-packages" not in frame.f_code.co_filename
    ]
    return lines[-1]


def is_missing(error: Exception) -> bool:
    """Return whether an error says that a file is missing; a missing bucket is another error."""
    return isinstance(error, FileNotFoundError) and s3_error_code(error) != _NO_BUCKET


def is_transient_storage_error(error: Exception) -> bool:
    """Return whether another try may succeed: the storage is busy or out of reach.

    Classes are known by name: each file system has its own HTTP library, and few are installed.
    """
    if answer := _s3_answer(error):
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = s3_error_code(error)
        return code in _TRANSIENT_CODES or "Throttl" in code or is_transient_status(status)
    if _untrusted(error):
        return False
    classes = {each.__name__ for each in type(error).__mro__}
    return (
        bool(classes & _TRANSIENT_CLASSES)
        or _number(error) in _TRANSIENT_NUMBERS
        or is_transient_status(_status(error))
    )


def s3_error_code(error: Exception) -> str:
    """Return the code of an S3 store's answer, such as SlowDown, or its status if it has no body;
    empty for other errors.
    """
    code = str(_s3_answer(error).get("Error", {}).get("Code", ""))
    return code if _CODE.fullmatch(code) else ""


def describe_storage_error(error: Exception) -> str:
    """Return what a store or a disk says, or else the error's class, and what that means."""
    code = s3_error_code(error)
    if not code and (number := _number(error)):
        return os.strerror(number)
    code = code or type(_untrusted(error) or error).__name__
    return f"{code}, {_MEANINGS[code]}" if code in _MEANINGS else code


def _number(error: Exception) -> int | None:
    """Return the number that the system gives an error; those of TLS and of DNS mean others."""
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError | socket.gaierror):
        return None
    return error.errno


def _status(error: Exception) -> int | None:
    """Return the status of a store's answer, which each library keeps under another name."""
    for name in ("status", "status_code", "code"):
        if isinstance(status := getattr(error, name, None), int):
            return status
    return None


def _untrusted(error: Exception) -> BaseException | None:
    """Return the certificate error that caused this error, if one did."""
    refusals = (each for each in _chain(error) if isinstance(each, ssl.SSLCertVerificationError))
    return next(refusals, None)


def is_transient_status(status: object) -> bool:
    """Return whether a server that answers so may answer otherwise later."""
    return isinstance(status, int) and (
        status in _TRANSIENT_STATUSES or (status >= 500 and status != 501)
    )


def _is_disk_full(error: Exception) -> bool:
    # Polars and Delta pass on Rust's text without its number.
    in_text = any(f"(os error {number})" in str(error) for number in _DISK_FULL)
    return in_text or getattr(error, "errno", None) in _DISK_FULL


def _s3_answer(error: Exception) -> dict[str, Any]:
    for each in _chain(error):
        answer: Any = getattr(each, "response", None)
        if isinstance(answer, dict):
            return cast("dict[str, Any]", answer)
    return {}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those it came of; s3fs does not name the cause of all of its errors."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
