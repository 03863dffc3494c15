"""Files on any fsspec file system, each written as a whole or not at all."""

import errno
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from glob import has_magic
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any, BinaryIO, NamedTuple
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from blocks.storage.errors import LakeError as LakeError
from blocks.storage.errors import NotInLake as NotInLake
from blocks.storage.errors import (
    describe_storage_error,
    is_missing,
    s3_error_code,
    translate_lake_errors,
)
from blocks.storage.proof import is_s3, put_proved, sha256_in
from blocks.storage.scratch import temporary_folder
from nudgescribe.errors import NudgeflowError

OWNER_ONLY = 0o600
OWNER_ONLY_FOLDER = 0o700
DRAFT = ".draft-"
UPLOADS = "unfinished uploads"
UPLOAD_BYTES = 16 * 1024 * 1024
"""Size of a part of a multipart upload; smaller files are sent at once."""
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}
_UNMAKEABLE = {errno.EACCES, errno.ENAMETOOLONG, errno.ENOENT, errno.EPERM, errno.EROFS}
_EXCLUSIVE: set[str] = set()
"""The stores that have been seen to create a file once, by root and options."""


class AlreadyThere(NudgeflowError):
    """The file to create is there already."""

    advice = "Somebody else has written it: look at what is there."


class NotExclusive(LakeError):
    """The lake's store lets more than one writer create the same file."""

    advice = (
        "Nothing was changed. Use a store that lets only the first of two writers create a file: "
        "a local disk that makes hard links, or an S3 that knows If-None-Match."
    )


class InTheWay(LakeError):
    """A file lies where a folder of the lake belongs, or a folder where a file does."""

    advice = "It is none of Nudgeflow's: move it away, then retry."


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

    A path is never a pattern, whatever characters it holds.

    All methods raise LakeUnreachable, LakeError or DiskFull.
    """

    def __init__(self, root: str, options: dict[str, Any]) -> None:
        self.root = root.rstrip("/")
        self._id = sha256(f"{root} {options}".encode()).hexdigest()
        try:
            # A cached listing would hide what another process has written.
            self.fs, self._folder = url_to_fs(root, **{"use_listings_cache": False, **options})
        except ImportError as error:
            missing = error.name or "its library"
            raise LakeError(f"{root} cannot be used: {missing} is not installed.") from None
        except Exception as error:
            reason = describe_storage_error(error)
            raise LakeError(f"{root} cannot be used: {reason}.") from None

    @property
    def is_local(self) -> bool:
        """Return whether the files are on this machine's own file system."""
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

        Raises AlreadyThere, NotExclusive if more than one could succeed on this store.
        """
        if not (self.is_local or self._id in _EXCLUSIVE):
            self._check_exclusive()
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

    def _check_exclusive(self) -> None:
        """Create a file twice, to see that the store refuses to. Raises NotExclusive."""
        probe = f"{DRAFT}{uuid4()}"
        with self.translate_errors(probe):
            if not (_creates_at_once(self.fs) and self._refuses_second(self.fs_path(probe))):
                raise NotExclusive(
                    f"The store of {self.root} lets two writers create the same file."
                )
        _EXCLUSIVE.add(self._id)

    def _refuses_second(self, probe: str) -> bool:
        try:
            self._pipe_new(probe, b"first")
            return not self._pipe_new(probe, b"second") and self.fs.cat_file(probe) == b"first"
        except (NotImplementedError, TypeError):
            return False
        except OSError as error:
            if error.errno != errno.ENOSYS:  # S3's NotImplemented
                raise
            return False
        finally:
            with suppress(FileNotFoundError):
                self.fs.rm_file(probe)

    def _pipe_new(self, target: str, content: bytes) -> bool:
        """Return whether the store has taken it for a new file."""
        try:
            self.fs.pipe_file(target, content, mode="create")
        except OSError as error:
            if not _says_it_exists(error):
                raise
            return False
        return True

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; do nothing if there is none."""
        target = self.fs_path(path)
        with self.translate_errors(path), _suppress_missing():
            if self.is_local or not has_magic(target):
                self.fs.rm(target, recursive=True)
                return
            for each in self.fs.find(target, detail=True):  # `rm` would take it for a pattern
                self.fs.rm_file(each)

    # ---- reading ------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """Return a file's content. Raises NotInLake."""
        with self.translate_errors(path):
            return self.fs.cat_file(self.fs_path(path))

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file's content in hexadecimal. Raises NotInLake."""
        with self.translate_errors(path):
            return sha256_in(self.fs, self.fs_path(path))

    def get(self, path: str, local: Path) -> None:
        """Copy a file to a local one. Raises NotInLake."""
        with translate_lake_errors(path, str(local.parent)):
            if self.is_local:
                shutil.copyfile(self.fs_path(path), local)  # `get_file` takes a folder, too
            else:
                self.fs.get_file(self.fs_path(path), str(local))

    @contextmanager
    def open(self, path: str) -> Generator[BinaryIO]:
        """Open a file for reading. Raises NotInLake."""
        with self.translate_errors(path), self.fs.open(self.fs_path(path), "rb") as file:
            yield file

    def exists(self, path: str) -> bool:
        """Return whether there is a file or a folder of this path."""
        with self.translate_errors(path), _suppress_missing():
            self.fs.info(self.fs_path(path))  # `exists` of some file systems hides any error
            return True
        return False

    def list_names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder, without drafts; none if there is no such folder."""
        listed: list[str] = []
        with self.translate_errors(folder), _suppress_missing():
            listed = self.fs.ls(self.fs_path(folder), detail=False)
        # A file, or an object that stands for a folder, is listed as the only one in itself.
        inside = f"{self.fs_path(folder).rstrip('/')}/"
        names = {each.removeprefix(inside).rstrip("/") for each in listed if each != inside}
        return sorted(name for name in names if name and "/" not in name and not is_draft(name))

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Yield every file in a folder and its subfolders, drafts among them."""
        with self.translate_errors(folder):
            listed = self.fs.find(self.fs_path(folder), detail=True)
        for fs_path, info in listed.items():
            if not fs_path.endswith("/"):  # an object that stands for a folder
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
            _make_folder(folder, Path(files.fs_path("")))
        else:
            folder = self._resources.enter_context(temporary_folder())
        self.file = folder / f"{DRAFT}{uuid4()}"
        if private:
            self.file.touch(mode=OWNER_ONLY, exist_ok=False)

    def publish(self, *, exclusive: bool = False, sha256: str | None = None) -> None:
        """Make the file appear as a whole, replacing an earlier one.

        With its `sha256` the store is proved to hold it as it is: it was synced to the local disk,
        or the store says so, or it was read back.

        Raises FileExistsError if it is to be `exclusive`, on a local file system, and one is there;
        StoredOtherwise.
        """
        if not self._files.is_local:
            if sha256:
                put_proved(self._files.fs, self.file, self._target, sha256)
            else:
                # An object appears when its upload is complete.
                options = {"chunksize": UPLOAD_BYTES} if is_s3(self._files.fs) else {}
                self._files.fs.put_file(str(self.file), self._target, **options)
        else:
            with self.file.open("rb") as content:
                os.fsync(content.fileno())
            if exclusive:
                self._link()
            else:
                self._replace()
        self.discard()

    def _replace(self) -> None:
        try:
            os.replace(self.file, self._target)
        except IsADirectoryError:
            raise InTheWay(f"{self._target} is a folder where a file belongs.") from None

    def _link(self) -> None:
        try:
            os.link(self.file, self._target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise NotExclusive(
                f"The file system of {self._files.root} makes no hard links."
            ) from None

    def discard(self) -> None:
        """Remove the local file; do nothing once it is published."""
        self.file.unlink(missing_ok=True)
        self._resources.close()


def is_draft(path: str) -> bool:
    """Return whether a path is that of a draft, a file that its process has not published."""
    return path.rpartition("/")[2].startswith(DRAFT)


def _make_folder(folder: Path, root: Path) -> None:
    """Make a local folder. The root, if it is new, is for its owner only.

    Raises InTheWay, LakeError.
    """
    try:
        if not root.exists():
            root.parent.mkdir(parents=True, exist_ok=True)
            root.mkdir(mode=OWNER_ONLY_FOLDER, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        places = (folder, *folder.parents)
        file = next((place for place in places if place.is_file()), folder)
        raise InTheWay(f"{file} is a file where a folder belongs.") from None
    except OSError as error:
        if error.errno not in _UNMAKEABLE:
            raise
        reason = describe_storage_error(error)
        raise LakeError(f"The folder {folder} cannot be made: {reason}.") from None


def _creates_at_once(fs: AbstractFileSystem) -> bool:
    """Return whether a file system has its own way to create a file, for all processes.

    That of fsspec, SFTP's for instance, looks whether the file exists, and writes then.
    """
    own = fs.async_impl or type(fs).pipe_file is not AbstractFileSystem.pipe_file
    return own and fs.protocol != "memory"


@contextmanager
def _suppress_missing() -> Generator[None]:
    try:
        yield
    except NotADirectoryError:
        pass
    except FileNotFoundError as error:
        if not is_missing(error):
            raise


def _says_it_exists(error: OSError) -> bool:
    # s3fs translates the answer of AWS; other stores, such as Ceph, give only the code.
    return isinstance(error, FileExistsError) or s3_error_code(error) in (
        "PreconditionFailed",
        "412",
    )


def _modified(info: dict[str, Any]) -> datetime:
    time = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(time, datetime):
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    return datetime.fromtimestamp(float(time or 0), UTC)
