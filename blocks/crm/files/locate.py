"""The files of a customer list: finding them, fetching them from any file system, decompressing."""

import logging
import re
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.files import compression
from blocks.saved import Logger
from blocks.storage.errors import (
    describe_storage_error,
    is_transient_storage_error,
    s3_error_code,
)
from blocks.storage.scratch import temporary_folder
from nudgescribe.errors import first_ten

ListFormat = Literal["csv", "parquet", "ndjson"]
ReadBytes = Callable[[int], bytes]

FORMATS: dict[str, ListFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
COMPRESSED = {".gz", ".zst", ".zstd"}
COPY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class SourceFile:
    """A file on its file system; `name` is shown to people and holds no credentials."""

    fs: AbstractFileSystem
    path: str
    name: str
    logger: Logger

    @property
    def format(self) -> ListFormat | None:
        """Return the format its name says, if any."""
        return detect_format(self.name)

    def modified(self) -> datetime:
        """Return when the file was written.

        Raises SourceError, SourceUnavailable; NotImplementedError if its file system does not tell.
        """
        with translate_source_errors(self.name):
            fs: Any = self.fs
            fs.invalidate_cache()  # an earlier look may have listed it
            try:
                at: datetime = fs.modified(self.path)
            except NotImplementedError:
                pass
            else:
                return at if at.tzinfo else at.replace(tzinfo=UTC)
        raise NotImplementedError

    def check_kind(self) -> None:
        """Raise SourceError if its first bytes are those of a kind that is no list of text."""
        with translate_source_errors(self.name), self.fs.open(self.path, "rb") as file:
            head = file.read(compression.MAGIC_BYTES)
        compression.check_kind(self.name, head)
        compression.check_text(self.name, head)

    @contextmanager
    def fetch(self) -> Generator[Path]:
        """Fetch the file and yield its local path, still compressed.

        Raises SourceError, SourceUnavailable.
        """
        with temporary_folder() as folder:
            is_local = isinstance(self.fs, LocalFileSystem)
            path = Path(self.path) if is_local else folder / "list"
            with translate_source_errors(self.name):
                if "https" in self.fs.protocol:
                    from blocks.crm.files import http

                    http.fetch(self.fs, self.path, path, self.name, self.logger)
                elif not is_local:
                    self._copy(path)
                path.open("rb").close()
            yield path

    def _copy(self, target: Path) -> None:
        """Copy the file from its file system; some of them take a connection's end for its end."""
        self.fs.get_file(self.path, str(target))
        self.fs.invalidate_cache()  # an earlier run may have listed it
        announced = self.fs.info(self.path).get("size")
        if announced is not None and target.stat().st_size != announced:
            raise SourceUnavailable(
                f"{self.name} has {announced:,} bytes, but {target.stat().st_size:,} arrived."
            )

    @contextmanager
    def open(self) -> Generator[ReadBytes]:
        """Yield a function that reads up to a number of decompressed bytes; empty at end of file.

        Raises SourceError, SourceUnavailable.
        """
        with self.fetch() as path, path.open("rb", buffering=0) as raw:
            yield partial(compression.read, self.name, compression.decompressed(self.name, raw))

    @contextmanager
    def decompress(self) -> Generator[Path]:
        """Decompress the file and yield its local path. Raises SourceError, SourceUnavailable."""
        with self.fetch() as path:
            with path.open("rb") as raw:
                head = compression.check_kind(self.name, raw.read(compression.MAGIC_BYTES))
            if compression.compression_of(head) is None:
                yield path
                return
            with temporary_folder() as folder, path.open("rb", buffering=0) as raw:
                copy = folder / "list"
                stream = compression.decompressed(self.name, raw)
                with copy.open("wb") as out:
                    while piece := compression.read(self.name, stream, COPY_BYTES):
                        out.write(piece)
                yield copy

    def check_columns(
        self, columns: Sequence[str], expected: Sequence[str], known: Collection[str] | None = None
    ) -> None:
        """Check for the first file's columns, in any order. Raises SourceError, which tells only
        names that are `known` to be none of a customer's values; None knows all.
        """
        missing, added = {*expected} - {*columns}, {*columns} - {*expected}
        lacks = [
            name if known is None or name in known else f"that file's column {number}"
            for number, name in enumerate(expected, 1)
            if name in missing
        ]
        more = f"in addition {first_ten(sorted(added))}"
        if known is not None:
            more = "1 other" if len(added) == 1 else f"{len(added):,} others"
        kinds = (("lacks", missing, first_ten(lacks)), ("has", added, more))
        if differences := " and ".join(f"{verb} {what}" for verb, some, what in kinds if some):
            look = " Look whether each file has a header row, and the same one."
            raise SourceError(
                f"{self.name} has other columns than the first file: it {differences}."
                f"{'' if known is None else look}"
            )

    def log_rows(self, form: str, before: int, after: int) -> None:
        """Log which rows of the list are this file's, so that a rejected row can be found."""
        rows = f"rows {before + 1:,} to {after:,} of the list" if after > before else "no rows"
        self.logger.info("%s: %s, %s", self.name, form, rows)


def locate(url: str, options: dict[str, Any], logger: Logger) -> list[SourceFile]:
    """Return the file at a path or fsspec URL, or all that a pattern matches, sorted by path, but
    as in a shell no hidden ones that it does not name as such.

    Raises SourceError if a pattern matches none, SourceUnavailable.
    """
    name = redact_url(url)
    with translate_source_errors(name):
        fs, path = url_to_fs(url, **options)
        if not has_magic(redact_url(path)) or fs.exists(path):
            return [SourceFile(fs, path, name, logger)]
        fs.invalidate_cache()  # an earlier run may have listed it
        infos = fs.glob(path, detail=True)
        found = sorted(at for at, info in infos.items() if info["type"] != "directory")
        paths = [at for at in found if _hidden(at) <= _hidden(path)]
        is_local = isinstance(fs, LocalFileSystem)
        names = [at if is_local else redact_url(fs.unstrip_protocol(at)) for at in paths]
    if not paths:
        raise SourceError(f"{name}: there is no such file.")
    return [SourceFile(fs, at, name, logger) for at, name in zip(paths, names, strict=True)]


def _hidden(path: str) -> int:
    """Count the hidden files and folders of a path."""
    return f"/{path}".count("/.")


def detect_format(name: str) -> ListFormat | None:
    """Return the format a file's name says, compressed or not; None if it says none."""
    suffixes = PurePosixPath(name.lower()).suffixes
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def redact_url(url: str) -> str:
    """Return a URL without user, password and query, each of which may be a secret."""
    url = re.sub(r"://[^/]*@", "://", url)
    return re.sub(r"(https?://[^?#]*).*", r"\1", url, flags=re.DOTALL)


@contextmanager
def translate_source_errors(name: str) -> Generator[None]:
    """Translate any error of a file system, without its text, which may hold secrets.

    Raises SourceUnavailable if another try may succeed, else SourceError.
    """
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{name}: there is no such file.") from None
    except ImportError:
        raise SourceError(f"{name}: the library for such a URL is not installed.") from None
    except IsADirectoryError:
        raise SourceError(f"{name} is a folder: state a pattern, such as {name}/*.csv.") from None
    except Exception as error:
        from blocks.crm.files import http

        reason = http.reason_of(error) or describe_storage_error(error)
        if is_transient_storage_error(error) or http.is_no_http(error):
            raise SourceUnavailable(f"{name} could not be reached: {reason}.") from None
        if isinstance(error, PermissionError) and not s3_error_code(error):
            raise SourceError(f"{name} may not be read by this user or with these keys.") from None
        raise SourceError(f"{name} could not be read: {reason}.") from None


def _redact_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact_url(record.getMessage()), None
    return True


logging.getLogger("fsspec.http").addFilter(_redact_record)  # it logs whole URLs
