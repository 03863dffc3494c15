from pathlib import Path

import pytest

from blocks import FileCrm
from blocks.crm import SourceError
from tasks.campaigns import Refresh
from tasks.customers.extract import extract_customers
from tasks.ui.console import StatusLine
from tests.conftest import customers
from tests.tasks.conftest import Local


@pytest.fixture
def file(local: Local) -> Path:
    """The list of the CRM."""
    path = local.folder / "customers.csv"
    customers(20).write_csv(path)
    local.crm = FileCrm(path=str(path))
    return path


def test_extract_returns_staged_list_when_repeated(
    local: Local, refresh: Refresh, file: Path
) -> None:
    first = extract_customers.fn(local.crm, local.lake, refresh)
    file.write_text("customer_id\nsomebody else\n")
    assert extract_customers.fn(local.crm, local.lake, refresh) == first
    assert (first.rows, first.path) == (20, f"staging/{refresh.id}/extracted.parquet")


def test_extract_stages_nothing_when_list_is_unreadable(
    local: Local, refresh: Refresh, file: Path
) -> None:
    file.unlink()
    with pytest.raises(SourceError, match="no such file"):
        extract_customers.fn(local.crm, local.lake, refresh)
    assert not local.lake.files.exists("staging")


def test_extract_shows_rows_read_so_far(
    local: Local, refresh: Refresh, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(StatusLine, "update", lambda line, text: shown.append(text))
    extract_customers.fn(local.crm, local.lake, refresh)
    assert shown == ["Extracted 20 rows so far"]
