"""Messages for customers who are made up."""

from collections.abc import Sequence
from functools import partial

import polars as pl
import pytest

from nudgescribe.contract import Segment, WorkspaceField
from nudgescribe.fields import DATE_FORMATS, validate
from nudgescribe.samples import PEOPLE, made_up, render
from sandbox import demo_customers
from sandbox.writing.templates import MessageRenderer, fill_segment

FIELDS = [
    WorkspaceField(
        field_id="", workspace_id="", **field.model_dump(exclude={"workspace_id", "display_name"})
    )
    for field in demo_customers.fields("")
]


@pytest.mark.parametrize("date_format", DATE_FORMATS)
def test_made_up_customers_keep_the_fields_rules(date_format: str) -> None:
    field = partial(WorkspaceField, field_id="", workspace_id="")
    dated = field(field_name="day", field_type="Date", field_format=date_format)
    yen = field(field_name="yen", field_type="currency", field_format="JPY")
    fields: Sequence[WorkspaceField] = [*FIELDS, dated, yen]
    people = pl.DataFrame([made_up(fields, number) for number in range(PEOPLE)])
    assert validate(people, fields).errors.is_empty()
    assert people["first_name"].n_unique() == PEOPLE


@pytest.mark.parametrize(
    ("segment", "template"),
    [
        ({"plan": "basic", "region": "North"}, demo_customers.TEMPLATE),
        ({"plan": '{{ "x', "region": "{% a %}\r\n"}, demo_customers.TEMPLATE),
        ({"plan": "", "region": "{{ first_name }}"}, 'a {{"}}"}} {{plan}}{{ region }} {{visits}}'),
    ],
)
def test_message_reads_as_the_service_writes_it(segment: Segment, template: str) -> None:
    text, customer = fill_segment(template, segment), made_up(FIELDS, 1)
    sent = MessageRenderer(list(segment), [(segment, text)])
    rows = sent.render(sent.select(pl.DataFrame([{**customer, **segment}])), "customer_id")
    assert render(text, segment, customer) == rows["message"].item()


def test_placeholder_that_no_field_fills_stays_for_reviewers() -> None:
    assert render("Dear {{ nobody }}, {{ 1 + 1 }}", {}, {}) == "Dear {{ nobody }}, {{ 1 + 1 }}"
    assert render(r'{{ "\x41" }}', {}, {}) == r"\x41"
