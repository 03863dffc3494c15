"""Lists of a person's own for `make demo`: read, or refused before anything starts."""

from pathlib import Path

import pytest

from deployments.demo_list import ListUnusable, read_list
from nudgescribe.errors import NudgeflowError
from sandbox import demo_customers
from sandbox.demo_customers import LEAVE_EVERY, PLANS_BEFORE, customers, customers_now
from sandbox.seed import SeedRefused

ROWS = "Customer ID ; Plan;2nd plan;visits;if\n1;a;b;7;x\n2;ä;b;N/A;y\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8-sig", None), ("windows-1252", None), ("utf-16", ";")]
)
def test_list_is_read_as_a_refresh_reads_it(
    file: Path, encoding: str, delimiter: str | None
) -> None:
    file.write_bytes(ROWS.encode(encoding))
    stated = None if encoding == "utf-8-sig" else encoding
    listed = read_list(file, " Plan, 2nd plan", delimiter, stated)
    fields = ["Customer_ID", "Plan", "column_3_2nd_plan", "visits", "column_5_if"]
    assert list(listed.columns) == listed.frame.columns == fields
    assert listed.columns["Customer_ID"] == "Customer ID"  # without the blanks around it
    assert listed.segments == ["Plan", "column_3_2nd_plan"]
    assert listed.frame["Plan"].to_list() == ["a", "ä"]
    listed.write_csv(file)
    again = read_list(file, "Plan")
    assert again.frame.equals(listed.frame)


@pytest.mark.parametrize(
    ("content", "segments", "options", "told"),
    [
        (ROWS, "plan,", {}, "no column 'plan' to segment by"),
        (ROWS, " ,", {}, "No column of the list is named"),
        (ROWS, "Customer ID", {}, "segment by others"),
        (
            ROWS,
            "Plan",
            {"delimiter": ";;"},
            "at delimiter: the delimiter must be one ASCII character",
        ),
        (ROWS, "Plan", {"encoding": "klingon"}, "no such encoding"),
        ("id,plan\n1,a\n", "plan", {}, "The list has 1 row; 2 are needed."),
        ("id,plan\n1,a\n1,b\n,c\n,d\n", "plan", {}, "1 customer identifier occurs more than"),
        ('id,plan\n1,"a\n', "plan", {}, "cut off"),
        ("", "plan", {}, "empty"),
    ],
)
def test_list_or_arguments_are_refused_in_a_sentence(
    file: Path, content: str, segments: str, options: dict[str, str], told: str
) -> None:
    file.write_text(content)
    with pytest.raises((ListUnusable, SeedRefused), match=told):
        read_list(file, segments, **options)


@pytest.mark.parametrize("encoding", [None, "utf-8", "ascii", "utf-16"])
def test_list_of_another_encoding_is_refused_with_the_options_that_state_it(
    file: Path, encoding: str | None
) -> None:
    file.write_bytes(ROWS.encode("latin-1"))
    with pytest.raises(ListUnusable, match=r"[Ss]tate .*--encoding.*ENCODING=") as refused:
        read_list(file, "Plan", encoding=encoding)
    assert "block" not in str(refused.value)


def test_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NudgeflowError, match=r"There is no file .*nothing\.csv"):
        read_list(tmp_path / "nothing.csv", "a")


def test_customers_of_today_differ_only_as_told() -> None:
    before = {one["customer_id"]: one for one in customers(1000, PLANS_BEFORE)}
    now = {one["customer_id"]: one for one in customers_now(1000, invalid_every=97)}
    assert len(before.keys() - now) == len(now.keys() - before) == 1000 // LEAVE_EVERY
    for number in sorted(before.keys() & now):
        is_mistaken = int(number) % 97 == 0
        moved = {"plan": "student"} if before[number]["plan"] == "legacy" else {}
        assert (now[number] != before[number] | moved) == is_mistaken, number
    assert set(demo_customers.PLANS_NOW) == {one["plan"] for one in now.values()}
