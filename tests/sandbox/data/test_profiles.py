"""Customers at rest: encrypted, upserted by identifier, gone when they are deleted."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from sandbox.context import Context
from sandbox.data import profiles
from sandbox.data.models import Base, Customer, Group, Job, ProfileChunk, UploadChunk
from sandbox.data.profiles import Profiles
from sandbox.engine import uploads
from tests.conftest import Company, Sandbox, customers
from tests.sandbox.conftest import ended_job

Ids = st.lists(st.integers(0, 30).map(str), unique=True, max_size=20)
Changes = st.lists(st.tuples(st.booleans(), Ids), max_size=6)


@contextmanager
def new_group(context: Context, company: Company) -> Iterator[Profiles]:
    with context.store.write() as session:
        group = Group(workspace_id=company.seeded.workspace_id, name=str(uuid4()))
        session.add(group)
        session.flush()
        yield Profiles(session, context.keys, group.id)


def held(group: Profiles) -> dict[str, str]:
    frames = list(group.frames(["customer_id", "first_name"]))
    return {key: name for frame in frames for key, name in frame.rows()}


@given(changes=Changes)
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
def test_group_has_what_was_upserted_and_not_removed(
    sandbox: Sandbox, company: Company, changes: list[tuple[bool, list[str]]]
) -> None:
    expected: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as small, new_group(sandbox.context, company) as group:
        small.setattr(profiles, "CHUNK_ROWS", 7)
        small.setattr(profiles, "BATCH_DIGESTS", 3)
        for turn, (put, ids) in enumerate(changes):
            if put:
                names = [f"{each} of {turn}" for each in ids]
                group.upsert(pl.DataFrame({"customer_id": ids, "first_name": names}, strict=False))
                expected.update(zip(ids, names, strict=True))
            else:
                assert group.remove([*ids, *ids]) == len(expected.keys() & {*ids})
                expected = {key: name for key, name in expected.items() if key not in ids}
        assert held(group) == expected
        assert group.size == len(expected)
        pages = [group.page(start, 5) for start in range(0, len(expected) + 5, 5)]
        assert pl.concat(pages)["customer_id"].to_list() == list(held(group))


def test_upsert_with_fewer_columns_keeps_the_other_values(
    sandbox: Sandbox, company: Company
) -> None:
    with new_group(sandbox.context, company) as group:
        group.upsert(customers(20))
        moved = customers(25).select("customer_id", "first_name", plan=pl.lit("moved"))
        group.upsert(moved)
        expected = customers(20).with_columns(plan=pl.lit("moved"))
        (kept,) = group.frames(expected.columns)
        assert kept.head(20).equals(expected)
        assert kept.tail(5)["last_name"].null_count() == 5


def test_remove_keeps_customers_of_other_groups(sandbox: Sandbox, company: Company) -> None:
    with new_group(sandbox.context, company) as one:
        one.upsert(customers(10))
    with new_group(sandbox.context, company) as other:
        other.upsert(customers(10))
        assert other.remove(["000001"]) == 1
    with sandbox.context.store.read() as session:
        assert Profiles(session, sandbox.context.keys, one._group_id).size == 10


def test_database_has_no_readable_customer_data(
    sandbox: Sandbox, company: Company, client: NudgescribeClient
) -> None:
    where = company.seeded.workspace_id, company.seeded.customer_group_id
    marked = customers(1).with_columns(first_name=pl.lit("Xanthippe"), customer_id=pl.lit("Q-007"))
    client.upload_customers(*where, rfc4180.write(marked))
    with sandbox.context.store.write() as session:
        group = Profiles(session, sandbox.context.keys, company.seeded.customer_group_id)
        file = io.BytesIO(rfc4180.write(marked))
        uid = uploads.queue(session, group, company.seeded.customer_group_id, file, "user")
        session.flush()
        session.scalars(select(Job).where(Job.uid == uid)).one().state = "waiting"
        for table in Base.metadata.sorted_tables:
            rows = session.execute(select(table)).all()
            for secret in ("Xanthippe", "Q-007", company.seeded.profile_key):
                assert secret not in str(rows), table.name
    profiles_read = [each.profile["first_name"] for each in client.customers(*where)]
    assert "Xanthippe" in profiles_read


def test_delete_group_deletes_its_customers(
    sandbox: Sandbox, company: Company, client: NudgescribeClient
) -> None:
    group = company.seeded.customer_group_id
    client.delete_group(group)
    with sandbox.context.store.read() as session:
        assert not session.scalars(select(ProfileChunk).where(ProfileChunk.group_id == group)).all()
        lost = select(Customer).where(Customer.block_number.not_in(select(ProfileChunk.number)))
        assert not session.scalars(lost).all()


def test_repeated_identifiers_are_rejected_wherever_they_are(
    company: Company, client: NudgescribeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 500)
    where = company.seeded.workspace_id, company.seeded.customer_group_id
    list_ = customers(200)
    order = list(range(200))
    Random(1).shuffle(order)
    twice = pl.concat([list_, list_[[3, 150]]])[[*order, 200, 201]]
    result = client.upload_customers(*where, rfc4180.write(twice))
    assert (result.total, result.rejected) == (202, 4)
    assert {error.code for error in result.errors} == {"duplicate"}
    rows = {error.row for error in result.errors}
    assert rows == {order.index(3) + 1, order.index(150) + 1, 201, 202}


def test_upload_to_a_deleted_group_fails_and_deletes_its_file(
    sandbox: Sandbox, company: Company, client: NudgescribeClient
) -> None:
    with sandbox.context.store.write() as session:
        group = Profiles(session, sandbox.context.keys, company.seeded.customer_group_id)
        uid = uploads.queue(session, group, str(uuid4()), io.BytesIO(b"customer_id"), "user")
        number = session.scalars(select(Job.number).where(Job.uid == uid)).one()
    job = ended_job(sandbox, number)
    with sandbox.context.store.read() as session:
        kept = session.scalars(select(UploadChunk).where(UploadChunk.job_uid == uid)).all()
    assert (job.state, job.note, kept) == ("failed", "The customer group is gone.", [])
