"""Campaigns of a sandbox taken through reruns, and what the wire showed on the way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import httpx
from sqlalchemy import delete, select

from sandbox.data.models import Campaign, Message
from tests.conformance import lists
from tests.conformance.lists import Customer
from tests.conformance.wire import Account, Object, until
from tests.conftest import Company

Segment = dict[str, str]
NEW_SEGMENTS = [{"plan": "student", "region": region} for region in ("North", "South")]
"""Segments that no campaign has at first."""
NEW_TEMPLATE = "{{ plan }} and {{ region }}, in words that Run #1 did not have."


@dataclass(frozen=True)
class View:
    """What the wire shows of a campaign at one moment."""

    campaign: Object
    runs: list[Object]
    messages: list[Object]

    @classmethod
    def of(cls, account: Account) -> "View":
        return cls(account.campaign(), account.runs(), account.messages())


@dataclass(frozen=True)
class Story:
    """Run #2 with matched, new and orphaned segments, then Run #3 with the segments of Run #2,
    both published. `pages` are the CSVs of the runs when each was the current one.
    """

    account: Account
    groups: dict[int, list[Customer]]
    first: View
    started: Object
    reviewed: View
    archived: list[Object]
    approved: View
    published: View
    started_again: Object
    ready: View
    last: View
    pages: dict[int, str]


@dataclass(frozen=True)
class Watched:
    """A rerun polled from its begin to its end; `during` was seen right after the begin."""

    account: Account
    first: View
    started: Object
    during: View
    archived: list[Object]
    seen: list[Object]


@dataclass(frozen=True)
class Failure:
    """A rerun whose job failed, and what there was before and after."""

    first: View
    started: Object
    last: View
    page: str
    page_after: str


def tell(company: Company, account: Account) -> Story:
    first, pages = View.of(account), {1: account.fetch("utf8")["content"]}
    old = sorted(
        (message["segment"] for message in first.messages), key=lambda each: [*each.items()]
    )
    rewrite(company)

    rows = customers_in([*old[:6], *NEW_SEGMENTS])
    started = initiate(account, new_group(account, "Second customers", rows))
    settle(account)
    reviewed, archived = View.of(account), account.messages(run_number=1)
    assert company.sandbox.approve(account.access.campaign_id).status_code == 200
    approved = View.of(account)
    pages[2] = publish(account, rows)
    published = View.of(account)

    same = rows[::-2]
    started_again = initiate(account, new_group(account, "Third customers", same))
    settle(account)
    ready = View.of(account)
    pages[3] = publish(account, same)
    return Story(
        account,
        {2: rows, 3: same},
        first,
        started,
        reviewed,
        archived,
        approved,
        published,
        started_again,
        ready,
        View.of(account),
        pages,
    )


def watch(account: Account) -> Watched:
    first = View.of(account)
    group = new_group(account, "Watched customers", customers_in(NEW_SEGMENTS))
    started = initiate(account, group)
    during, archived = View.of(account), account.messages(run_number=1)
    seen: list[Object] = []

    def look() -> Object:
        seen.append(account.runs()[0])
        return seen[-1]

    until(look, lambda run: run["status"] != "Processing")
    return Watched(account, first, started, during, archived, seen)


def fail(account: Account) -> Failure:
    """Begin a rerun whose job fails, since its group has no customers."""
    first, page = View.of(account), account.fetch("utf8")["content"]
    started = initiate(account, new_group(account, "Nobody", []))
    settle(account)
    return Failure(first, started, View.of(account), page, account.fetch("utf8")["content"])


def ready_to_publish(account: Account) -> list[Customer]:
    """Rerun onto customers of the same segments; return the customers."""
    rows = customers_in(message["segment"] for message in account.messages())
    initiate(account, new_group(account, lists.unique_name(), rows))
    assert settle(account)["status"] == "Ready to publish"
    return rows


def put_into(company: Company, status: str) -> None:
    """Set the campaign's status, whatever it was."""
    with company.sandbox.context.store.write() as session:
        session.get_one(Campaign, company.seeded.campaign_id).status = status


def withdraw_one_message(company: Company) -> None:
    """Set one message of the Published campaign to another stage."""
    with company.sandbox.context.store.write() as session:
        query = select(Message).where(Message.campaign_id == company.seeded.campaign_id)
        session.scalars(query.limit(1)).one().approval_stage = "Ready to publish"


def drop_messages(company: Company) -> None:
    with company.sandbox.context.store.write() as session:
        query = delete(Message).where(Message.campaign_id == company.seeded.campaign_id)
        session.execute(query)


def set_quota(company: Company, messages: int | None) -> None:
    url = f"{company.sandbox.url}/sandbox/accounts/{company.seeded.account_id}/quota"
    assert httpx.put(url, json={"messages": messages}).status_code == 200


def rewrite(company: Company) -> None:
    """Give the campaign another template, so that new messages differ from copied ones."""
    with company.sandbox.context.store.write() as session:
        session.get_one(Campaign, company.seeded.campaign_id).template = NEW_TEMPLATE


def customers_in(segments: Iterable[Segment]) -> list[Customer]:
    """Return two customers in each segment."""
    twice = [segment for segment in segments for _ in range(2)]
    return [
        {"customer_id": f"{number:04d}", "first_name": "Ada", **segment}
        for number, segment in enumerate(twice)
    ]


def new_group(account: Account, name: str, rows: Sequence[Customer]) -> Object:
    body = {"workspace_id": account.access.workspace_id, "name": name}
    group = account.ask("/v1/cg", body, verb="PUT")
    if rows:
        assert lists.upload(account, group, rows)["accepted"] == len(rows)
    return group


def initiate(account: Account, group: Object) -> Object:
    return account.ask_campaign(
        "/v1/campaign/rerun/initiate", new_customer_group_id=group["customer_group_id"]
    )


def settle(account: Account) -> Object:
    """Wait for the newest run's job to end; return the run."""
    return until(lambda: account.runs()[0], lambda run: run["status"] != "Processing")


def publish(account: Account, rows: Sequence[Customer]) -> str:
    """Publish; return the one page once it has these customers."""
    ids = {row["customer_id"] for row in rows}
    account.ask_campaign("/v1/messages/publish")
    until(account.num_files, lambda files: files == 1)
    page = account.fetch("utf8")["content"]
    assert {row["customer_id"] for row in lists.parsed(page)} == ids
    return page
