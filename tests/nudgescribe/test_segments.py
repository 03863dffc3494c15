import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe import segments
from nudgescribe.contract import Segment

segment = st.fixed_dictionaries({"plan": st.text(max_size=3), "region": st.text(max_size=3)})
sets = st.lists(segment, max_size=8, unique_by=segments.key)


@given(sets, sets)
def test_compare_splits_both_sets_without_loss(
    earlier: list[Segment], later: list[Segment]
) -> None:
    compared = segments.compare(earlier, later)

    def names(some: tuple[Segment, ...] | list[Segment]) -> set[str]:
        return {segments.key(each) for each in some}

    assert names(compared.matched) == names(earlier) & names(later)
    assert names(compared.new) == names(later) - names(earlier)
    assert names(compared.orphaned) == names(earlier) - names(later)


@given(st.lists(segment, max_size=20))
def test_count_finds_every_customer_in_one_segment(customers: list[Segment]) -> None:
    frame = pl.DataFrame(customers, schema={"plan": pl.String, "region": pl.String})
    counted = segments.count(frame.lazy(), ["plan", "region"])
    assert sum(size for _, size in counted) == len(customers)
    assert {segments.key(each) for each, _ in counted} == {segments.key(each) for each in customers}
    assert len(counted) == len({segments.key(each) for each in customers})


def test_key_ignores_order_of_variables() -> None:
    assert segments.key({"a": "1", "b": "2"}) == segments.key({"b": "2", "a": "1"})


def test_count_takes_null_and_empty_for_one_segment() -> None:
    frame = pl.DataFrame({"plan": [None, "", "x"]})
    assert segments.count(frame.lazy(), ["plan"]) == [({"plan": ""}, 2), ({"plan": "x"}, 1)]


def test_segments_accept_any_variable_name() -> None:
    frame = pl.DataFrame({"*": ["a", "a"], "^x$": ["b", None], "id": ["1", "2"]})
    segment = {"*": "a", "^x$": "b"}
    assert segments.count(frame.lazy(), ["*", "^x$"]) == [({**segment, "^x$": ""}, 1), (segment, 1)]
    assert segments.distinct([frame], ["^x$", "*"]) == [{**segment, "^x$": ""}, segment]
