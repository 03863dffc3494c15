"""Memory of what compares sets of customers, and of wide lists, in processes of their own."""

from pathlib import Path

import pytest

from benchmarks import identifiers, wide_list
from benchmarks.measuring import in_a_process

ROWS = 2_000_000
MOST_KB = 150 * 1024


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list, a group and two runs of as many customers, and small ones to warm up with."""
    root = tmp_path_factory.mktemp("lakes") / "lake"
    identifiers.prepare(root, ROWS)
    identifiers.prepare(root.with_suffix(".few"), identifiers.FEW)
    return root


@pytest.mark.chaos
@pytest.mark.parametrize("way", identifiers.WAYS)
def test_comparison_of_millions_needs_bounded_memory(customers: Path, way: str) -> None:
    measured = in_a_process("benchmarks.identifiers", way, customers)
    assert measured.rows == ROWS
    assert measured.peak - measured.rss < MOST_KB


@pytest.mark.chaos
@pytest.mark.parametrize("way", wide_list.WAYS)
def test_wide_list_needs_bounded_memory(tmp_path: Path, way: str) -> None:
    wide_list.prepare(tmp_path / "list.parquet", wide_list.ROWS)
    wide_list.prepare(tmp_path / "list.few", wide_list.FEW)
    measured = in_a_process("benchmarks.wide_list", way, tmp_path / "list.parquet")
    assert measured.rows == wide_list.ROWS
    assert measured.peak - measured.rss < 400 * 1024
