"""Files on any fsspec file system, each written as a whole or not at all."""

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
from blocks.storage.errors import NotInLake, s3_error_code, translate_lake_errors
from blocks.storage.scratch import temporary_folder
from nudgescribe.errors import NudgeflowError

OWNER_ONLY = 0o600
DRAFT = ".draft-"
UPLOADS = "unfinished uploads"
UPLOAD_BYTES = 16 * 1024 * 1024
"""Size of a part of a multipart upload; smaller files are sent at once."""


class AlreadyThere(NudgeflowError):
    advice = "Somebody else has written it: look at what is there."


class StoredFile(NamedTuple):
    """A file, the time it was last written, and its size in bytes."""

    path: str
    modified: datetime
    bytes: int


class UnfinishedUpload(NamedTuple):
    """A multipart upload of a file that was neither completed nor aborted."""

    path: str
    upload_id: str
    started: datetime


class Files:
    """The files below `root`, a path or an fsspec URL; all other paths are relative to it.

    All methods raise LakeUnreachable, LakeError or DiskFull.
    """

    def __init__(self, root: str, options: dict[str, Any]) -> None:
        self.root = root.rstrip("/")
        # A cached listing would hide what another process has written.
        self.fs, self._folder = url_to_fs(root, **{"use_listings_cache": False, **options})

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def url(self, path: str) -> str:
        """Return the whole path as people write it, with the protocol of `root`."""
        return f"{self.root}/{path}"

    def fs_path(self, path: str) -> str:
        """Return the whole path as the file system `fs` takes it."""
        return f"{self._folder.rstrip('/')}/{path}"

    def translate_errors(self, path: str) -> AbstractContextManager[None]:
        """Translate errors as `translate_lake_errors` does."""
        return translate_lake_errors(path, self.root if self.is_local else gettempdir())

    # ---- writing ------------------------------------------------------------------------------

    def draft(self, path: str, *, private: bool = False) -> "Draft":
        """Return a local file that appears under `path` once it is published."""
        return Draft(self, path, private)

    @contextmanager
    def new_file(self, path: str, *, private: bool = False) -> Generator[Path]:
        """Return a local file to write; it appears under `path` if the block does not fail."""
        with self.translate_errors(path):
            draft = self.draft(path, private=private)
            try:
                yield draft.file
                draft.publish()
            finally:
                draft.discard()

    def put(self, local: Path, path: str, *, private: bool = False) -> None:
        """Copy a local file to `path`, replacing what is there."""
        with self.new_file(path, private=private) as draft:
            shutil.copyfile(local, draft)

    def write(self, path: str, content: bytes, *, private: bool = False) -> None:
        """Write `content` to `path`, replacing what is there."""
        with self.new_file(path, private=private) as draft:
            draft.write_bytes(content)

    def create(self, path: str, content: bytes, *, private: bool = False) -> None:
        """Write `content` to a new file; of several writers exactly one succeeds.

        Raises AlreadyThere.
        """
        with self.translate_errors(path):
            try:
                self._create(path, content, private)
            except OSError as error:
                if not _says_it_exists(error):
                    raise
                raise AlreadyThere(f"{path} is in the lake already.") from None

    def _create(self, path: str, content: bytes, private: bool) -> None:
        if not self.is_local:
            self.fs.pipe_file(self.fs_path(path), content, mode="create")
            return
        draft = self.draft(path, private=private)
        try:
            draft.file.write_bytes(content)
            draft.publish(exclusive=True)
        finally:
            draft.discard()

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; do nothing if there is none."""
        target = self.fs_path(path)
        with self.translate_errors(path):
            if self.fs.exists(target):
                self.fs.rm(target, recursive=True)

    # ---- reading ------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """Return a file's content. Raises NotInLake."""
        with self._translate_missing(path, self.root):
            return self.fs.cat_file(self.fs_path(path))

    def get(self, path: str, local: Path) -> None:
        """Copy a file to a local one. Raises NotInLake."""
        with self._translate_missing(path, str(local.parent)):
            self.fs.get_file(self.fs_path(path), str(local))

    @contextmanager
    def open(self, path: str) -> Generator[BinaryIO]:
        """Open a file for reading. Raises NotInLake."""
        with (
            self._translate_missing(path, self.root),
            self.fs.open(self.fs_path(path), "rb") as file,
        ):
            yield file

    def exists(self, path: str) -> bool:
        with self.translate_errors(path):
            return self.fs.exists(self.fs_path(path))

    def list_names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder, without drafts; none if there is no such folder."""
        with self.translate_errors(folder):
            try:
                listed = self.fs.ls(self.fs_path(folder), detail=False)
            except FileNotFoundError:
                return []
        names = (each.rstrip("/").rpartition("/")[2] for each in listed)
        return sorted(name for name in names if not name.startswith(DRAFT))

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Yield every file in a folder and its subfolders, drafts among them."""
        with self.translate_errors(folder):
            listed = self.fs.find(self.fs_path(folder), detail=True)
        for fs_path, info in listed.items():
            path = fs_path.removeprefix(self.fs_path(""))
            yield StoredFile(path, _modified(info), int(info["size"] or 0))

    def now(self) -> datetime:
        """Return the time by the storage's clock, which `StoredFile.modified` comes from.

        A file is written to learn it.
        """
        probe = f"{DRAFT}{uuid4()}"
        self.write(probe, b"now")
        ((_, modified, _),) = self.list_files(probe)
        self.remove(probe)
        return modified

    @contextmanager
    def _translate_missing(self, path: str, folder: str) -> Generator[None]:
        with translate_lake_errors(path, folder):
            try:
                yield
            except FileNotFoundError:
                raise NotInLake(f"{path} is not in the lake.") from None

    # ---- multipart uploads --------------------------------------------------------------------

    def unfinished_uploads(self, before: datetime) -> Iterator[UnfinishedUpload]:
        """Yield the unfinished uploads that were started before a time; only S3 has any.

        They are in no listing of files, and their storage is charged.
        """
        if is_s3(self.fs):
            with self.translate_errors(UPLOADS):
                yield from self._unfinished_uploads(before)

    def abort_upload(self, path: str, upload_id: str) -> None:
        """Abort an unfinished upload; do nothing if there is none."""
        bucket, _, _ = self._folder.partition("/")
        key = self.fs_path(path).removeprefix(f"{bucket}/")
        with self.translate_errors(path), suppress(FileNotFoundError):
            self.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)

    def _unfinished_uploads(self, before: datetime) -> Iterator[UnfinishedUpload]:
        bucket, _, folder = self._folder.partition("/")
        prefix = f"{folder}/" if folder else ""
        marker: dict[str, Any] = {}
        while True:
            listed = self.fs.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **marker
            )
            for each in listed.get("Uploads", []):
                if each["Initiated"] < before:
                    path = each["Key"].removeprefix(prefix)
                    yield UnfinishedUpload(path, each["UploadId"], each["Initiated"])
            if not listed.get("IsTruncated"):
                break
            marker = {
                "KeyMarker": listed["NextKeyMarker"],
                "UploadIdMarker": listed["NextUploadIdMarker"],
            }


class Draft:
    """A local `file` that is not visible in the lake before it is published."""

    def __init__(self, files: Files, path: str, private: bool) -> None:
        self._files = files
        self._target = files.fs_path(path)
        self._resources = ExitStack()
        if files.is_local:
            folder = Path(self._target).parent
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = self._resources.enter_context(temporary_folder())
        self.file = folder / f"{DRAFT}{uuid4()}"
        if private:
            self.file.touch(mode=OWNER_ONLY, exist_ok=False)

    def publish(self, *, exclusive: bool = False) -> None:
        """Make the file appear as a whole, replacing an earlier one.

        Raises FileExistsError if it is to be `exclusive`, on a local file system, and one is there.
        """
        if not self._files.is_local:
            # An object appears when its upload is complete.
            options = {"chunksize": UPLOAD_BYTES} if is_s3(self._files.fs) else {}
            self._files.fs.put_file(str(self.file), self._target, **options)
        else:
            with self.file.open("rb") as content:
                os.fsync(content.fileno())
            if exclusive:
                os.link(self.file, self._target)
            else:
                os.replace(self.file, self._target)
        self.discard()

    def discard(self) -> None:
        """Remove the local file; do nothing once it is published."""
        self.file.unlink(missing_ok=True)
        self._resources.close()


def is_s3(fs: AbstractFileSystem) -> bool:
    """Return whether it is s3fs, without importing s3fs, which a local lake does not need."""
    return hasattr(fs, "call_s3")


def _says_it_exists(error: OSError) -> bool:
    # s3fs translates the answer of AWS; other stores, such as Ceph, give only the code.
    return isinstance(error, FileExistsError) or s3_error_code(error) == "PreconditionFailed"


def _modified(info: dict[str, Any]) -> datetime:
    time = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(time, datetime):
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    return datetime.fromtimestamp(float(time or 0), UTC)
