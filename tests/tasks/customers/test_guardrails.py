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
    usual = {"accepted": 100, "rejected": 0, "before": 100, "quarantine": None}
    return ListCounts.model_validate(
        {**usual, "new_segments": 0, "orphaned_segments": 0, **changes}
    )


@pytest.mark.parametrize(
    ("limits", "changes", "error", "problem"),
    [
        ({}, {"accepted": 0, "before": None}, TooFewRows, "0 rows were accepted, fewer than 1"),
        ({"min_rows": 101}, {}, TooFewRows, "100 rows were accepted, fewer than 101"),
        ({}, {"rejected": 6}, TooManyRejected, "6 of 106 rows were rejected, more than 5.0%"),
        (
            {},
            {"before": 143},
            ShrunkTooMuch,
            "down from 143: it shrank by more than 30",
        ),
        ({}, {"before": 49}, GrownTooMuch, "up from 49: it grew by more than 100"),
        ({}, {"new_segments": 101}, TooManyNewSegments, "101 new segments, more than 100"),
        ({}, {"orphaned_segments": 101}, TooManyOrphanedSegments, "101 segments would be left"),
    ],
)
def test_guardrail_raises_its_own_error_when_exceeded(
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
        {"accepted": 95, "rejected": 5},
        {"before": 142},
        {"before": 50},
        {"before": 0},
        {"before": None},
        {"new_segments": 100, "orphaned_segments": 100},
    ],
)
def test_guardrails_pass_list_within_limits(changes: dict[str, int | None]) -> None:
    Guardrails().check(counts(**changes))


def test_guardrails_list_every_limit_exceeded() -> None:
    hits = Guardrails().hits(counts(accepted=10, rejected=90, new_segments=500))
    assert [type(hit) for hit in hits] == [TooManyRejected, ShrunkTooMuch, TooManyNewSegments]


def test_guardrail_error_names_quarantine() -> None:
    given_ = counts(rejected=50).model_copy(update={"quarantine": "quarantine/x.parquet"})
    with pytest.raises(TooManyRejected, match=r"See quarantine/x\.parquet in the lake"):
        Guardrails().check(given_)


@given(st.integers(1, 10**9))
def test_guardrails_pass_unchanged_list(size: int) -> None:
    Guardrails(max_rejected=0, max_shrink=0, max_growth=0).check(counts(accepted=size, before=size))
