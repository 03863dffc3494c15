"""Files: a path means just itself, a file is created once, folders and modes."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blocks import DataLake
from blocks.storage.files import Files, LakeError, NotExclusive
from tests.support.lakes import check_paths
from tests.support.stores import Store

NAMES = st.text(
    st.sampled_from("ab1 %*?[]{}()!&'+,;=@#~^$|<>\"\\_-é日🎉"), min_size=1, max_size=12
).filter(lambda name: name == name.strip())


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """The root that a lake's root is below, and options."""
    if request.param == "s3":
        yield "s3://lake", store.options
    else:
        with TemporaryDirectory() as folder:
            yield folder, {}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(root=NAMES, folder=NAMES, name=NAMES)
@example("crm[1]", "crm[1]", "[a].json")
@example("eu*", "*", "*")
@example("a%20b", "a b", "%2F?")
def test_operation_on_a_path_leaves_other_paths_alone(
    place: tuple[str, dict[str, Any]], root: str, folder: str, name: str
) -> None:
    check_paths(*place, root, folder, name)


# ---- exclusive creation -----------------------------------------------------------------------


@contextmanager
def observed(store: Store, change: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    """Calls `change` with each request before the store sees it."""
    store.change = change
    try:
        yield
    finally:
        store.change = lambda request: None


def test_create_is_refused_when_store_ignores_condition(store: Store) -> None:
    files = store.lake(f"s3://lake/{uuid4()}").files
    with observed(store, lambda request: request.pop("HTTP_IF_NONE_MATCH", None)):
        for _ in range(2):
            with pytest.raises(NotExclusive, match=f"The store of {files.root}"):
                files.create("x", b"")
        files.write("y", b"")
    assert [file.path for file in files.list_files("")] == ["y"]
    files.create("x", b"")


def test_store_is_probed_once_per_process_and_root(store: Store) -> None:
    seen: list[str] = []
    lake = store.lake(f"s3://lake/{uuid4()}")
    with observed(store, lambda request: seen.append(request["REQUEST_METHOD"])):
        for name in "abc":
            Files(lake.root, lake.options).create(name, b"")
    assert seen.count("PUT") == 2 + 3
    assert lake.files.list_names("") == ["a", "b", "c"]


def answer(*_: object, mode: str) -> None:
    raise OSError(errno.ENOSYS, "x")


@pytest.mark.parametrize(
    "pipe_file",
    [
        MemoryFileSystem.pipe_file,
        AbstractFileSystem.pipe_file,  # looks whether the file exists, as SFTP's does
        lambda fs, path, value: None,  # of before fsspec had modes
        answer,
    ],
)
def test_create_is_refused_on_file_system_that_cannot(pipe_file: Any) -> None:
    protocol = "memory" if pipe_file is MemoryFileSystem.pipe_file else f"x{uuid4().hex}"
    members = {"pipe_file": pipe_file, "protocol": protocol}
    kind = type("Other", (MemoryFileSystem,), members)
    fsspec.register_implementation(protocol, kind, clobber=True)
    with pytest.raises(NotExclusive, match=f"The store of {protocol}://lake"):
        Files(f"{protocol}://lake", {}).create("x", b"")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_create_is_refused_without_hard_links(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "x")

    monkeypatch.setattr("blocks.storage.files.os.link", refuse)
    with pytest.raises(NotExclusive, match=f"file system of {tmp_path} makes no hard links"):
        Files(str(tmp_path), {}).create("x", b"")
    assert [*tmp_path.iterdir()] == []


# ---- foreign files and modes ------------------------------------------------------------------


def test_object_that_stands_for_a_folder_is_no_file(store: Store) -> None:
    lake = store.lake(f"s3://lake/{uuid4()}")
    key = lake.root.removeprefix("s3://lake/")
    store.put(f"{key}/")
    store.put(f"{key}/folder/")
    assert lake.files.list_names("folder") == []
    lake.files.write("folder/x", b"")
    assert lake.files.list_names("") == ["folder"]
    assert lake.files.list_names("folder") == ["x"]
    assert [file.path for file in lake.files.list_files("")] == ["folder/x"]
    lake.files.remove("folder")
    assert lake.files.list_names("") == []


@pytest.mark.parametrize(("there", "mode"), [(False, 0o700), (True, 0o755)])
def test_new_root_is_for_its_owner_only(there: bool, mode: int, tmp_path: Path) -> None:
    root = tmp_path / "data/lake"
    if there:
        root.mkdir(parents=True)
    umask = os.umask(0o022)
    try:
        files = DataLake(root=str(root)).files
        files.write("messages/part", b"")
        files.create("staging/list", b"", private=True)
    finally:
        os.umask(umask)
    modes = [each.stat().st_mode & 0o777 for each in (root, root / "messages", root.parent)]
    assert modes == [mode, 0o755, 0o755]
    assert (root / "messages/part").stat().st_mode & 0o777 == 0o644
    assert (root / "staging/list").stat().st_mode & 0o777 == 0o600


def test_missing_root_is_an_empty_lake(tmp_path: Path) -> None:
    files = Files(str(tmp_path / "lake"), {})
    assert not files.exists("x")
    assert files.list_names("x") == [*files.list_files("x")] == []
    with pytest.raises(LakeError):
        files.read("x")
