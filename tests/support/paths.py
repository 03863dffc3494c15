"""Work on one path of a lake, which must leave all others as they are."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest

from blocks.storage.files import AlreadyThere, Files


def check_paths(base: str, options: dict[str, Any], root: str, folder: str, name: str) -> None:
    """Calls each operation for a file of a lake that lies in a new folder of `base`."""
    root = f"{base}/{uuid4()}/{root}"
    others = Files(base, options)
    files, path = Files(root, options), f"{folder}/{name}"
    own = root.removeprefix(f"{base}/")
    roots = [f"{own.partition('/')[0]}/{other}" for other in ("crm1", "eu1", "a")]
    near = {f"{other}/{path}" for other in (*roots, f"{own}1") if other != own}
    near |= {f"{own}/{folder}1/{name}", f"{own}/1{folder}/{name}"}
    for other in near:
        others.write(other, b"other")
    files.write(path, b"first")
    files.write(path, b"1")
    files.create(f"{folder}/{name}.new", b"2")
    with pytest.raises(AlreadyThere):
        files.create(path, b"3")
    assert files.exists(path)
    assert files.read(path) == b"1"
    with files.open(path) as opened:
        assert opened.read() == b"1"
    with TemporaryDirectory() as target:
        files.get(path, Path(target, "copy"))
        assert Path(target, "copy").read_bytes() == b"1"
    assert files.list_names(folder) == sorted([name, f"{name}.new"])
    assert {file.path for file in files.list_files(folder)} == {path, f"{path}.new"}
    assert files.list_names(path) == []
    files.remove(path)
    assert files.list_names(folder) == [f"{name}.new"]
    files.remove(folder)
    assert files.list_names(folder) == []
    assert [other for other in near if others.read(other) != b"other"] == []
