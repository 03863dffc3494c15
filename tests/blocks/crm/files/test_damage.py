"""A flipped bit of a Parquet list loses no row; where there are checksums, it changes no value."""

import pytest

from tests.damage import CODECS, damage

FLIPS = 150


@pytest.mark.parametrize("codec", CODECS)
def test_damaged_list_with_checksums_is_exact_or_refused(codec: str) -> None:
    found = damage(codec, checksums=True, flips=FLIPS)
    assert (found.changed, found.rows, found.raw) == (0, 0, 0)
    assert found.refused > FLIPS / 2


@pytest.mark.parametrize("codec", CODECS)
def test_damaged_list_without_checksums_lacks_no_row(codec: str) -> None:
    found = damage(codec, checksums=False, flips=FLIPS)
    assert (found.rows, found.raw) == (0, 0)
