"""Every file of the cases is read exactly, or refused in words that name it."""

import pytest

from blocks.crm.files.locate import detect_format
from tests.cases.judging import CASES
from tests.corpora import outcome

FILES = sorted(
    str(file.relative_to(CASES)) for file in CASES.rglob("*.*") if detect_format(file.name)
)


@pytest.mark.parametrize("file", FILES)
def test_file_of_anybody_is_exact_or_refused_by_its_name(file: str) -> None:
    found = outcome(CASES / file)
    assert found.partition(":")[0] in ("exact", "refused", "unknown"), found
