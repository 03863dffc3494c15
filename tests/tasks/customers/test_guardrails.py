import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.customers.guardrails import (
    GrownTooMuch,
    GuardrailHit,
    Guardrails,
    ListCounts,
    ShrunkTooMuch,
    TooFewRows,
    TooManyNewSegments,
    TooManyOrphanedSegments,
    TooManyRejected,
)


def counts(**changes: int | None) -> ListCounts:
    usual = {"rows": 100, "rejected": 0, "before": 100, "quarantine": None}
    return ListCounts.model_validate(
        {**usual, "new_segments": 0, "orphaned_segments": 0, **changes}
    )


@pytest.mark.parametrize(
    ("limits", "changes", "error", "problem"),
    [
        ({}, {"rows": 0, "before": None}, TooFewRows, "0 good rows, fewer than 1"),
        ({"min_rows": 101}, {}, TooFewRows, "100 good rows, fewer than 101"),
        ({}, {"rejected": 6}, TooManyRejected, "6 of 106 rows were rejected, over 5.0%"),
        ({}, {"before": 143}, ShrunkTooMuch, "100 customers after 143: it shrank by more than 30"),
        ({}, {"before": 49}, GrownTooMuch, "100 customers after 49: it grew by more than 100"),
        ({}, {"new_segments": 101}, TooManyNewSegments, "101 new segments, more than 100"),
        ({}, {"orphaned_segments": 101}, TooManyOrphanedSegments, "101 segments would be left"),
    ],
)
def test_each_limit_has_its_own_error(
    limits: dict[str, int],
    changes: dict[str, int | None],
    error: type[GuardrailHit],
    problem: str,
) -> None:
    with pytest.raises(error, match=f"{problem}.*options.guardrails"):
        Guardrails.model_validate(limits).check(counts(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"rejected": 5},
        {"rows": 95, "rejected": 5},
        {"before": 142},
        {"before": 50},
        {"before": 0},
        {"before": None},
        {"new_segments": 100, "orphaned_segments": 100},
    ],
)
def test_what_keeps_to_the_limits_passes(changes: dict[str, int | None]) -> None:
    Guardrails().check(counts(**changes))


def test_all_that_is_passed_is_told() -> None:
    hits = Guardrails().hits(counts(rows=10, rejected=90, new_segments=500))
    assert [type(hit) for hit in hits] == [TooManyRejected, ShrunkTooMuch, TooManyNewSegments]


def test_the_quarantine_is_named() -> None:
    given_ = counts(rejected=50).model_copy(update={"quarantine": "quarantine/x.parquet"})
    with pytest.raises(TooManyRejected, match=r"See quarantine/x\.parquet in the lake"):
        Guardrails().check(given_)


@given(st.integers(1, 10**9))
def test_an_unchanged_list_passes(size: int) -> None:
    Guardrails(max_rejected=0, max_shrink=0, max_growth=0).check(counts(rows=size, before=size))
