"""Hostile texts: names, fields and values come out as they went in, templates fail."""

from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from nudgescribe import rfc4180
from nudgescribe.contract import CreateField, Status
from sandbox import demo_customers
from sandbox.data.models import Campaign, Job
from tests.conftest import Company, customers
from tests.sandbox.api.security.tenants import (
    CREATE_FIELD,
    CUSTOMER,
    Tenant,
    check_refused,
    unharmed,
)
from tests.sandbox.conftest import ended_job, new_group

PATHS = [
    *("../../keys.json", "..", ".", "/etc/passwd", "..%2f..%2fkeys.json", "%2e%2e%2fkeys.json"),
    *("%252e%252e%252f", "..\\..\\keys.json", "file:///etc/passwd", "C:\\", "~", "$(id)"),
    *("a\r\nset-cookie: b", "\u202e\ufeff", "' OR 1=1 --", "x" * 200),
]
TEXTS = [
    *PATHS,
    *("{{ 7*7 }}", "{% for %}", "{{ ''.__class__ }}", "{{ first_name }}", "{{", "}}", "{#"),
    *("{% raw %}", '"}}{{ 7*7 }}{{"', "\\u007b{ 7*7 }}", "${7*7}", "%s %(x)s {0.__class__}"),
    *("=cmd|' /C calc'!A0", "<script>", "a\r\nb\n\tc\\", "a,b", 'q"q', "a\nb", " "),
    # Names that code which counts, joins and writes columns may use itself.
    *("row", "field", "code", "column", "len", "literal", "message"),
    *("number of the row", "number of the segment"),
]


def use(company: Company, **values: Any) -> None:
    """Set up the campaign as its owners would in the platform."""
    with company.sandbox.context.store.write() as session:
        campaign = session.get_one(Campaign, company.seeded.campaign_id)
        for name, value in values.items():
            setattr(campaign, name, value)


def message_to(customer: dict[str, str]) -> str:
    """Return the demo campaign's message to a customer, made without any template."""
    texts, rest = "", demo_customers.TEMPLATE
    for name in ("first_name", "last_name", "plan", "region"):
        literal, _, rest = rest.partition(f"{{{{ {name} }}}}")
        texts += literal + customer[name]
    return texts + rest


def test_hostile_text_names_and_describes_a_group(company: Company) -> None:
    workspace = company.seeded.workspace_id
    with company.client() as client:
        for text in TEXTS:
            group = client.create_group(workspace, text, text)
            assert (group.name, group.description) == (text, text)
        assert {*TEXTS} <= {each.name for each in client.list_groups(workspace)}


@pytest.fixture
def rows() -> pl.DataFrame:
    """Customers for whom each text is a field, and a value of each field unless it is blank."""
    values = [text for text in TEXTS if text.strip()]
    names = ["first_name", "last_name", "plan", "region", *TEXTS]
    starts = [number % len(values) for number in range(len(names))]
    columns = {name: values[at:] + values[:at] for name, at in zip(names, starts, strict=True)}
    ids = [f"{number}" for number in range(len(values))]
    return pl.DataFrame({"customer_id": ids, **columns})


def test_hostile_field_and_value_come_out_as_they_went_in(
    company: Company, rows: pl.DataFrame
) -> None:
    one, sandbox = company.seeded, company.sandbox
    with company.client() as client:
        for text in TEXTS:
            field = CreateField(workspace_id=one.workspace_id, field_name=text, field_type="string")
            assert client.create_field(field).field_name == text
        use(company, variables=["plan", "region", *TEXTS])
        group = new_group(client, one, rows)
        wrong = {**CUSTOMER, "first_name": "", **dict.fromkeys(TEXTS, "a\0b")}
        errors = client.upload_customer(one.workspace_id, group, wrong).errors
        codes = {each.field: each.code for each in errors}
        assert codes == {"first_name": "required", **dict.fromkeys(TEXTS, "nul")}
        client.initiate_rerun(one.campaign_id, group)
        assert company.settle(client).status == Status.READY_FOR_REVIEW
        segments = [dict(each.segment) for each in client.rerun_messages(one.campaign_id)]
        sandbox.approve(one.campaign_id).raise_for_status()
        uid = client.publish(one.campaign_id).job_uid
        with sandbox.context.store.read() as session:
            number = session.scalars(select(Job.number).where(Job.uid == uid)).one()
        assert ended_job(sandbox, number).state == "done"
        messages = rfc4180.read(client.fetch_csv(one.campaign_id, 0).encode())
        profiles = [each.profile for each in client.customers(one.workspace_id, group)]
        for each in client.list_fields(one.workspace_id):
            if each.field_name in TEXTS:
                client.delete_field(each.field_id)
    given = rows.rows(named=True)
    own = [{name: each[name] for name in ("plan", "region", *TEXTS)} for each in given]
    assert sorted(segments, key=repr) == sorted(own, key=repr)
    assert [{name: each[name] for name in rows.columns} for each in profiles] == given
    assert messages.rows() == [(each["customer_id"], message_to(each)) for each in given]


@pytest.mark.parametrize("name", ["*", "^.*$", "^$", "^(customer_id|plan)$", "^a\nb$"])
def test_pattern_of_columns_is_refused_as_a_field(ours: Tenant, name: str) -> None:
    with unharmed(ours):
        check_refused(ours.send(CREATE_FIELD, ours.body(CREATE_FIELD, field_name=name)))


def test_template_with_more_than_placeholders_fails_the_run(company: Company) -> None:
    campaign = company.seeded.campaign_id
    with company.client() as client:
        messages = client.rerun_messages(campaign)
        group = new_group(client, company.seeded, customers(10))
        for template in ("{{ plan.upper() }}", "{% for x in range(10**9) %}a{% endfor %}"):
            use(company, template=template)
            client.initiate_rerun(campaign, group)
            run = company.settle(client)
            assert run.status == Status.FAILED, template
            assert run.error is not None
            assert "template" in run.error
            assert template not in run.error
            assert client.rerun_messages(campaign) == messages
            copied = client.rerun_messages(campaign, run.run_number)
            assert {each.message for each in copied} <= {each.message for each in messages}
