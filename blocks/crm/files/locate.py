"""The files a customer list is in: finding them, and fetching them from any file system."""

import errno
import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from blocks.crm.source import SourceError, SourceUnavailable
from blocks.storage.scratch import temporary_folder

Format = Literal["csv", "parquet", "ndjson"]
Compression = Literal["gzip", "zstd"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
# By name: each file system has an HTTP library of its own, and none needs to be installed.
UNREACHABLE = {
    *("ConnectionError", "TimeoutError", "Timeout", "gaierror"),
    *("HTTPClientError", "ClientConnectionError", "ClientPayloadError", "ServiceRequestError"),
}
BUSY = {errno.EBUSY, errno.EREMOTEIO, errno.ENETUNREACH, errno.EHOSTUNREACH}


@dataclass(frozen=True)
class Found:
    """A file where its file system has it; `name` is for people and holds no credentials."""

    fs: AbstractFileSystem
    path: str
    name: str

    @property
    def format(self) -> Format | None:
        """What its name says it is."""
        return format_of(self.name)

    @property
    def compression(self) -> Compression | None:
        return COMPRESSIONS.get(PurePosixPath(self.name.lower()).suffix)

    @contextmanager
    def local(self) -> Generator[Path]:
        """The file on this machine. Raises SourceError, SourceUnavailable."""
        with temporary_folder() as folder:
            local = isinstance(self.fs, LocalFileSystem)
            path = Path(self.path) if local else folder / "list"
            with reaching(self.name):
                if not local:
                    self.fs.get_file(self.path, str(path))
                path.open("rb").close()
            yield path


def find(url: str, options: dict[str, Any]) -> list[Found]:
    """The file at a path or fsspec URL, or those a pattern matches, sorted by name. Raises
    SourceError if a pattern matches none, SourceUnavailable.
    """
    name = shown(url)
    with reaching(name):
        fs, path = url_to_fs(url, **options)
        if not has_magic(shown(path)) or fs.exists(path):
            return [Found(fs, path, name)]
        fs.invalidate_cache()  # it may have been listed by an earlier run
        infos = fs.glob(path, detail=True)
        paths = sorted(path for path, info in infos.items() if info["type"] != "directory")
        local = isinstance(fs, LocalFileSystem)
        found = [Found(fs, at, at if local else shown(fs.unstrip_protocol(at))) for at in paths]
    if not found:
        raise SourceError(f"{name}: there is no such file.")
    return found


def format_of(name: str) -> Format | None:
    suffixes = PurePosixPath(name.lower()).suffixes
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def shown(url: str) -> str:
    """A URL without user, password and query, each of which may be a secret."""
    url = re.sub(r"://[^/]*@", "://", url)
    return re.sub(r"(https?://[^?#]*).*", r"\1", url, flags=re.DOTALL)


@contextmanager
def reaching(name: str) -> Generator[None]:
    """Any error of a file system becomes a SourceError without its text, or a SourceUnavailable
    where another try may do.
    """
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{name}: there is no such file.") from None
    except ImportError:
        raise SourceError(f"{name}: the library for such a URL is not installed.") from None
    except IsADirectoryError:
        raise SourceError(f"{name} is a folder: state a pattern, such as {name}/*.csv.") from None
    except PermissionError:
        raise SourceError(f"{name} may not be read by this user or with these keys.") from None
    except Exception as error:
        kind = type(error).__name__
        if _unreachable(error):
            raise SourceUnavailable(f"{name} could not be reached: {kind}.") from None
        raise SourceError(f"{name} could not be read: {kind}.") from None


def _unreachable(error: Exception) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    number = error.errno if isinstance(error, OSError) else None
    return bool(kinds & UNREACHABLE) or number in BUSY or getattr(error, "status", 0) >= 500


def _as_shown(record: logging.LogRecord) -> bool:
    record.msg, record.args = shown(record.getMessage()), None
    return True


logging.getLogger("fsspec.http").addFilter(_as_shown)  # which logs whole URLs
