"""Files in a folder on any file system; what is written appears whole or not at all."""

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any, BinaryIO, NamedTuple
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from blocks.storage.errors import LakeError as LakeError
from blocks.storage.errors import NotInLake, code_of, lake_trouble
from blocks.storage.scratch import temporary_folder
from nudgescribe.errors import NudgeflowError

OWNER_ONLY = 0o600
DRAFT = ".draft-"
UPLOADS = "unfinished uploads"
UPLOAD_BYTES = 16 * 1024 * 1024
"""What is sent to an object store at once; larger files go up in pieces of this size."""


class AlreadyThere(NudgeflowError):
    advice = "Somebody else has written it: look at what is there."


class Files:
    """Paths in its methods are relative to `root`, a path or an fsspec URL.

    All of them raise LakeUnreachable, LakeError or DiskFull.
    """

    def __init__(self, root: str, options: dict[str, Any]) -> None:
        self.root = root.rstrip("/")
        # A cached listing would hide what another process has written.
        self.fs, self._folder = url_to_fs(root, **{"use_listings_cache": False, **options})

    @property
    def local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def url(self, path: str) -> str:
        """The whole path, for people."""
        return f"{self.root}/{path}"

    def place(self, path: str) -> str:
        """The path as the file system itself names it."""
        return f"{self._folder.rstrip('/')}/{path}"

    def trouble(self, path: str) -> AbstractContextManager[None]:
        """Says clearly what goes wrong with a path in the block."""
        return lake_trouble(path, self.root if self.local else gettempdir())

    def draft(self, path: str, *, private: bool = False) -> "Draft":
        """A local file to write, that will appear under `path` when it is published."""
        return Draft(self, path, private)

    @contextmanager
    def new(self, path: str, *, private: bool = False) -> Generator[Path]:
        """A local file to write; it appears under `path` when the block ends without an error."""
        with self.trouble(path):
            draft = self.draft(path, private=private)
            try:
                yield draft.file
                draft.publish()
            finally:
                draft.discard()

    def put(self, local: Path, path: str, *, private: bool = False) -> None:
        """Makes a local file appear under `path`."""
        with self.new(path, private=private) as draft:
            shutil.copyfile(local, draft)

    def write(self, path: str, content: bytes, *, private: bool = False) -> None:
        with self.new(path, private=private) as draft:
            draft.write_bytes(content)

    def create(self, path: str, content: bytes, *, private: bool = False) -> None:
        """Like `write`, but of all who try exactly one does it. Raises AlreadyThere."""
        with self.trouble(path):
            try:
                self._create(path, content, private)
            except OSError as error:
                if not _says_it_exists(error):
                    raise
                raise AlreadyThere(f"{path} is in the lake already.") from None

    def _create(self, path: str, content: bytes, private: bool) -> None:
        if not self.local:
            self.fs.pipe_file(self.place(path), content, mode="create")
            return
        draft = self.draft(path, private=private)
        try:
            draft.file.write_bytes(content)
            draft.publish(once=True)
        finally:
            draft.discard()

    def read(self, path: str) -> bytes:
        """Raises NotInLake."""
        with self._there(path):
            return self.fs.cat_file(self.place(path))

    def get(self, path: str, local: Path) -> None:
        """Copies a file of the lake to a local one. Raises NotInLake."""
        with self._there(path, str(local.parent)):
            self.fs.get_file(self.place(path), str(local))

    @contextmanager
    def open(self, path: str) -> Generator[BinaryIO]:
        """For reading. Raises NotInLake."""
        with self._there(path), self.fs.open(self.place(path), "rb") as file:
            yield file

    def exists(self, path: str) -> bool:
        with self.trouble(path):
            return self.fs.exists(self.place(path))

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder; none if there is no such folder."""
        with self.trouble(folder):
            try:
                listed = self.fs.ls(self.place(folder), detail=False)
            except FileNotFoundError:
                return []
        names = (each.rstrip("/").rpartition("/")[2] for each in listed)
        return sorted(name for name in names if not name.startswith(DRAFT))

    def found(self, folder: str) -> Iterator["Found"]:
        """Every file in a folder and its sub-folders."""
        with self.trouble(folder):
            found = self.fs.find(self.place(folder), detail=True)
        for place, info in found.items():
            yield Found(place.removeprefix(self.place("")), _written(info), int(info["size"] or 0))

    def below(self, folder: str) -> Iterator[tuple[str, datetime]]:
        """Every file in a folder and its sub-folders, with the time it was written."""
        return ((each.path, each.written) for each in self.found(folder))

    def now(self) -> datetime:
        """The time by the clock that `below` tells times by; this machine's may be another."""
        probe = f"{DRAFT}{uuid4()}"
        self.write(probe, b"now")
        ((_, written),) = self.below(probe)
        self.remove(probe)
        return written

    def remove(self, path: str) -> None:
        """Removes a file or a folder with all it holds, if it is there."""
        target = self.place(path)
        with self.trouble(path):
            if self.fs.exists(target):
                self.fs.rm(target, recursive=True)

    @contextmanager
    def _there(self, path: str, place: str | None = None) -> Generator[None]:
        with lake_trouble(path, place or self.root):
            try:
                yield
            except FileNotFoundError:
                raise NotInLake(f"{path} is not in the lake.") from None

    def unfinished_uploads(self, before: datetime) -> Iterator["Upload"]:
        """Uploads in pieces that were begun before a time and never ended: they show in no listing
        and cost money.
        """
        if is_s3(self.fs):
            with self.trouble(UPLOADS):
                yield from self._unfinished_uploads(before)

    def abort_upload(self, path: str, upload_id: str) -> None:
        """Ends an upload that is not finished, if it is there."""
        bucket, _, _ = self._folder.partition("/")
        key = self.place(path).removeprefix(f"{bucket}/")
        with self.trouble(path), suppress(FileNotFoundError):
            self.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)

    def _unfinished_uploads(self, before: datetime) -> Iterator["Upload"]:
        bucket, _, folder = self._folder.partition("/")
        where = {"Bucket": bucket, "Prefix": f"{folder}/" if folder else ""}
        more: dict[str, Any] = {}
        while True:
            listed = self.fs.call_s3("list_multipart_uploads", **where, **more)
            for each in listed.get("Uploads", []):
                if each["Initiated"] < before:
                    path = each["Key"].removeprefix(where["Prefix"])
                    yield Upload(path, each["UploadId"], each["Initiated"])
            if not listed.get("IsTruncated"):
                break
            more = {
                "KeyMarker": listed["NextKeyMarker"],
                "UploadIdMarker": listed["NextUploadIdMarker"],
            }


class Found(NamedTuple):
    """A file, when it was written and how many bytes it has."""

    path: str
    written: datetime
    bytes: int


class Upload(NamedTuple):
    """An unfinished upload of a file, and when it was begun."""

    path: str
    upload_id: str
    begun: datetime


class Draft:
    """A `file` on this machine that is not in the lake yet."""

    def __init__(self, files: Files, path: str, private: bool) -> None:
        self._files = files
        self._target = files.place(path)
        self._resources = ExitStack()
        if files.local:
            folder = Path(self._target).parent
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = self._resources.enter_context(temporary_folder())
        self.file = folder / f"{DRAFT}{uuid4()}"
        if private:
            self.file.touch(mode=OWNER_ONLY, exist_ok=False)

    def publish(self, *, once: bool = False) -> None:
        """Makes the file appear; with `once` raises FileExistsError if there is one already."""
        if not self._files.local:
            # An object appears when its upload is complete.
            options = {"chunksize": UPLOAD_BYTES} if is_s3(self._files.fs) else {}
            self._files.fs.put_file(str(self.file), self._target, **options)
        else:
            with self.file.open("rb") as content:
                os.fsync(content.fileno())
            if once:
                os.link(self.file, self._target)
            else:
                os.replace(self.file, self._target)
        self.discard()

    def discard(self) -> None:
        """Removes what was not published; harmless after it was."""
        self.file.unlink(missing_ok=True)
        self._resources.close()


def is_s3(fs: AbstractFileSystem) -> bool:
    """Whether it speaks S3; asked without importing s3fs, which a local lake does not need."""
    return hasattr(fs, "call_s3")


def _says_it_exists(error: OSError) -> bool:
    # s3fs knows how AWS says it; others, Ceph among them, name only the code.
    return isinstance(error, FileExistsError) or code_of(error) == "PreconditionFailed"


def _written(info: dict[str, Any]) -> datetime:
    time = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(time, datetime):
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    return datetime.fromtimestamp(float(time or 0), UTC)
