import pytest

from blocks.crm import SourceError
from tasks.campaigns import Refresh
from tasks.extract import extract_customers
from tests.conftest import Company, Save, customers


def test_a_list_once_staged_is_the_refreshs_list(
    company: Company, save: Save, refresh: Refresh
) -> None:
    saved = save(company, customers(20))
    first = extract_customers.fn(saved.crm, saved.name, refresh)
    saved.crm_file.write_text("customer_id\nsomebody else\n")
    assert extract_customers.fn(saved.crm, saved.name, refresh) == first
    assert (first.rows, first.path) == (20, f"staging/{refresh.id}/extracted.parquet")


def test_a_list_that_cannot_be_read_stages_nothing(
    company: Company, save: Save, refresh: Refresh
) -> None:
    saved = save(company, customers(20))
    saved.crm_file.unlink()
    with pytest.raises(SourceError, match="FileNotFoundError"):
        extract_customers.fn(saved.crm, saved.name, refresh)
    assert not saved.lake.files.exists("staging")
