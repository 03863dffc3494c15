"""Numbers and names as people read them."""

import pytest

from tasks.ui.markdown import change, percent, plain, two_columns, with_share


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 0, "0 %"),
        (0, 10, "0 %"),
        (1, 1_000_000, "less than 0.1 %"),
        (1, 1000, "0.1 %"),
        (4, 1000, "0.4 %"),
        (1, 20, "5 %"),
        (1, 3, "33.3 %"),
        (9995, 10_000, "more than 99.9 %"),
        (999, 1000, "99.9 %"),
        (10, 10, "100 %"),
        (25_000, 1000, "2,500 %"),
    ],
)
def test_percent_formats_share(part: int, whole: int, said: str) -> None:
    assert percent(part, whole) == said


def test_with_share_formats_number_and_share() -> None:
    assert with_share(51, 5000) == "51 (1 %)"
    assert with_share(1_234_567, 2_000_000) == "1,234,567 (61.7 %)"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (5, 5, "0"),
        (0, 1200, "+1,200"),
        (1000, 1004, "+4 (0.4 %)"),
        (2_000_000, 500_000, "−1,500,000 (75 %)"),
    ],
)
def test_change_formats_rise_and_fall(before: int, after: int, said: str) -> None:
    assert change(before, after) == said


def test_plain_escapes_markdown() -> None:
    assert plain("a|b *c* `d`\n[e](f) <g>") == r"a\|b \*c\* \`d\` \[e\](f) \<g\>"


def test_two_columns_returns_table() -> None:
    table = two_columns("seen", {"rows": "5", "files": "1"})
    assert table == "| | seen |\n|---|---:|\n| rows | 5 |\n| files | 1 |"
