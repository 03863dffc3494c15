"""Message texts: places are filled, values are data, and nothing is ever evaluated."""

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nudgescribe.contract import Segment
from sandbox.writing.templates import (
    BadTemplate,
    MessageRenderer,
    check,
    fill_segment,
    name_fields,
)

Text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
HOSTILE = "{{ 7 * 7 }}{% for x in y %}{# #}{"


def written(text: str, segment: Segment, **profile: str | None) -> str:
    """Return one customer's message, from the segment's text."""
    variables = list(segment)
    customer = pl.DataFrame({"customer_id": ["1"], **{k: [v] for k, v in profile.items()}})
    customer = customer.with_columns(**{k: pl.lit(v) for k, v in segment.items()})
    renderer = MessageRenderer(variables, [(segment, text)])
    return renderer.render(renderer.select(customer), "customer_id")["message"][0]


@given(plan=Text, name=Text)
def test_values_are_rendered_unchanged(plan: str, name: str) -> None:
    segment = {"plan": plan}
    text = fill_segment("{{ plan }} for {{ name }}: {{other}}", segment)
    assert written(text, segment, name=name, other=None) == f"{plan} for {name}: "


def test_values_are_not_read_as_templates() -> None:
    segment = {"plan": HOSTILE}
    text = fill_segment("{{ plan }} for {{ name }}", segment)
    assert written(text, segment, name=HOSTILE) == f"{HOSTILE} for {HOSTILE}"


def test_fill_segment_twice_changes_nothing() -> None:
    segment = {"plan": HOSTILE + "\r\nÉ🙂\"'\\"}
    text = fill_segment("A {{ plan }} for {{ name }}", segment)
    assert fill_segment(text, segment) == text


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for x in range(9) %}a{% endfor %}", "statement"),
        ("{{ 7 * 7 }}", "expression"),
        ("{{ ''.__class__.__mro__ }}", "expression"),
        ("{{ name.upper() }}", "expression"),
        ("{{ name | upper }}", "expression"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "expression"),
        ("{{ self.__init__.__globals__ }}", "expression"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "expression"),
        ("{{ 'a' * 10**9 }}", "expression"),
        ("{{ lipsum(10**6) }}", "expression"),
        ("{% set x = 1 %}", "statement"),
        ("{% import 'x' as y %}", "statement"),
        ("{{ 7 }}", "expression"),
        ("{% include 'x' %}", "statement"),
        ("one\n{{ name", "Line 2"),
        ("{{ other }}", "1 placeholders"),
        ("{{" + "(" * 9000 + "1" + ")" * 9000 + "}}", "nested too deeply"),
    ],
)
def test_template_with_more_than_placeholders_is_refused(template: str, problem: str) -> None:
    with pytest.raises(BadTemplate, match=problem) as caught:
        check(template, ["name"])
    assert template not in str(caught.value)


def test_placeholder_of_a_deleted_field_is_blank() -> None:
    assert written("Dear {{ name }}, {{ gone }}.", {"plan": "a"}, name="Anna") == "Dear Anna, ."


def test_empty_template_renders_an_empty_message() -> None:
    assert written("", {"plan": "a"}) == ""


def test_messages_have_the_order_of_the_customers() -> None:
    plans = ["b", "a", "c", "a", "b"]
    list_ = pl.DataFrame({"customer_id": list("12345"), "plan": plans})
    renderer = MessageRenderer(["plan"], [({"plan": "a"}, "of a"), ({"plan": "b"}, "of b")])
    rows = renderer.render(renderer.select(list_), "customer_id").rows()
    assert rows == [("1", "of b"), ("2", "of a"), ("4", "of a"), ("5", "of b")]


@given(st.lists(Text, unique=True))
@example(["a.b", "a_b", "a-b", "a_b_3"])
@example(["True", "not", "m²", "%", "2nd"])
def test_each_column_has_a_field_that_a_template_can_have(columns: list[str]) -> None:
    fields = name_fields(columns)
    assert list(fields.values()) == columns
    for field in fields:
        check(f"{{{{ {field} }}}}", [field])
    assert [*name_fields([*fields])] == [*fields]
