from pathlib import Path

import fsspec
import polars as pl
import pytest

from blocks import FileCrm
from blocks.crm.source import SourceError


def test_a_csv_file_keeps_every_value_as_it_is(tmp_path: Path) -> None:
    file, target = tmp_path / "list.csv", tmp_path / "list.parquet"
    file.write_bytes(b'id,name\r\n000123,"x\r\ny"\r\nNA,\r\n')
    assert FileCrm(path=str(file)).extract(target) == 2
    assert pl.read_parquet(target).rows() == [("000123", "x\r\ny"), ("NA", "")]


def test_a_long_csv_file_is_read_in_parts(tmp_path: Path) -> None:
    file, target = tmp_path / "list.csv", tmp_path / "list.parquet"
    file.write_bytes(b"id,name\n" + b'1,"some name\r\n"\n' * 700_000)
    assert FileCrm(path=str(file)).extract(target) == 700_000
    assert pl.read_parquet(target)["name"].unique().to_list() == ["some name\r\n"]


def test_a_parquet_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file, target = tmp_path / "list.parquet", tmp_path / "target.parquet"
    pl.DataFrame({"id": ["1", "2"], "n": [1, 2]}).write_parquet(file)
    assert FileCrm(path=str(file)).extract(target) == 2
    assert target.read_bytes() == file.read_bytes()


def test_a_file_on_another_file_system(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/crm/list.csv", b"id\n1\n")
    assert FileCrm(path="memory://crm/list.csv").extract(tmp_path / "list.parquet") == 1


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("list.xlsx", b"x", "not a .csv or .parquet"),
        ("list.csv", None, "FileNotFoundError"),
        ("list.csv", b"", "empty"),
        ("list.csv", b"id\n1\n\xff\n", "UTF-8"),
        ("list.parquet", b"not parquet", "ComputeError"),
        ("nofs://list.csv", None, "ValueError"),
    ],
)
def test_a_file_that_is_no_list_is_an_error(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    path = name if "://" in name else str(tmp_path / name)
    if content is not None:
        Path(path).write_bytes(content)
    with pytest.raises(SourceError, match=problem):
        FileCrm.model_validate({"path": path, "storage_options": {}}).extract(tmp_path / "out")
