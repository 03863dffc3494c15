"""A refresh among others: other servers, other people, other answers than it expects."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import polars as pl
import pytest
from markdown_it import MarkdownIt
from prefect.logging import disable_run_logger

from flows.options import RefreshOptions
from nudgescribe import contract
from nudgescribe.contract import SegmentMessage
from nudgescribe.errors import ContractMismatch, NudgeflowError
from nudgescribe.retry import RetryPolicy
from sandbox.data.models import Campaign
from tasks import campaigns
from tasks.customers import upload
from tasks.export import run
from tasks.journal.refresh import Refresh
from tasks.refresh import review
from tasks.refresh.checkpoint import Checkpoint
from tests import today
from tests.cases.judging import wrong
from tests.conftest import Company
from tests.flows.test_today import left
from tests.support.deployed import deployed

__all__ = ["deployed", "left"]

PUBLISH, UPLOAD = "POST /v1/messages/publish", "POST /v1/customer/check"
ROOT = Path(__file__).parents[2]


# ---- names and answers ------------------------------------------------------------------------


def me() -> Refresh:
    return Refresh(id=str(uuid4()), started=datetime.now(UTC))


@pytest.mark.xfail(strict=True, reason="a raw ValidationError once the list is judged")
def test_long_name_of_a_campaign_is_shortened_or_refused_before_anything(
    company: Company,
) -> None:
    with company.sandbox.context.store.write() as store:
        store.get_one(Campaign, company.seeded.campaign_id).name = "N" * 190
    account = company.account()
    template = RefreshOptions().group_name
    names: set[str] = set()
    with disable_run_logger():
        for refresh in (me(), me()):
            try:
                found = campaigns.find_campaign.fn(
                    account, company.seeded.campaign_id, refresh, template, False
                )
            except NudgeflowError:
                return
            names.add(upload.create_group.fn(account, found, template, refresh).name)
    assert len(names) == 2
    assert max(map(len, names)) <= 200


class Odd(httpx.BaseTransport):
    """A service with an odd value in its answers on one path."""

    def __init__(self, path: str, change: Callable[[Any], object]) -> None:
        self._path, self._change, self._real = path, change, httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._real.handle_request(request)
        answer.read()
        if request.url.path != self._path:
            return answer
        body = json.loads(answer.content)
        self._change(body)
        return httpx.Response(answer.status_code, json=body)

    def close(self) -> None:
        self._real.close()


def another_campaign(body: Any) -> None:
    draft = {"campaign_id": "c2", "name": "A draft", "status": "Draft", "current_run": None}
    other = {"workspace_id": "w2", "name": "Another brand", "campaigns": [draft]}
    body["workspaces"].append(other)


def another_group(body: Any) -> None:
    odd = {"customer_group_id": "g2", "name": "still importing", "customer_count": None}
    body["groups"].append({**body["groups"][0], **odd})


def in_campaigns(**values: object) -> Callable[[Any], None]:
    def change(body: Any) -> None:
        for workspace in body["workspaces"]:
            for campaign in workspace["campaigns"]:
                campaign.update(values)

    return change


def cancelled(body: Any) -> None:
    body["runs"].insert(0, {**body["runs"][0], "run_number": 2, "status": "Cancelled"})


def in_runs(**values: object) -> Callable[[Any], None]:
    return lambda body: [run.update(values) for run in body["runs"]]


CAMPAIGNS, HISTORY, SIZE = contract.CAMPAIGNS, contract.RERUN_HISTORY, contract.CUSTOMERS_PAGES
ZONELESS = "2026-11-01T10:00:00"
BOTH, TAKEN = ("refresh", "export"), None


@pytest.mark.parametrize(
    ("path", "change", "right", "whose"),
    [
        wrong(CAMPAIGNS, another_campaign, TAKEN, BOTH, why="one draft stops all campaigns"),
        wrong(contract.GROUPS, another_group, TAKEN, ["refresh"], why="one stops all campaigns"),
        wrong(CAMPAIGNS, in_campaigns(published_at=ZONELESS), TAKEN, BOTH, why="no zone, no UTC"),
        wrong(HISTORY, in_runs(started_at=ZONELESS), TAKEN, BOTH, why="no zone, no UTC"),
        wrong(HISTORY, lambda body: body["runs"].clear(), "runs", BOTH, why="a raw ValueError"),
        wrong(HISTORY, cancelled, "Cancelled", BOTH, why="taken for published"),
        wrong(HISTORY, in_runs(status="published"), "published", BOTH, why="taken for published"),
        (CAMPAIGNS, in_campaigns(start_date="2026-11-01T00:00:00Z"), "start_date", BOTH),
        (HISTORY, lambda body: body["runs"].extend(body["runs"]), TAKEN, BOTH),
        (SIZE, lambda body: body.update(total=1.5), "total", ["export"]),
    ],
)
def test_odd_value_is_refused_by_name_or_does_not_matter(
    company: Company,
    path: str,
    change: Callable[[Any], object],
    right: str | None,
    whose: Sequence[str],
) -> None:
    class Account:
        block_name = "main"

        def get_client(self, **options: object) -> Any:
            return company.client(transport=Odd(path, change), retry=RetryPolicy(attempts=1))

    account: Any = Account()
    campaign_id = company.seeded.campaign_id
    looks: dict[str, Callable[[], object]] = {
        "refresh": lambda: campaigns.find_campaign.fn(account, campaign_id, me(), "{run}", False),
        "export": lambda: run.find_runs.fn(account, campaign_id, "latest", True),
    }
    for who in whose:
        with disable_run_logger():
            if right is TAKEN:
                assert looks[who]()
                continue
            with pytest.raises(ContractMismatch, match=right):
                looks[who]()


NAME = "Spring\n\n# ALL APPROVED - press *publish now* ![](http://evil.example/beacon.png)"
LINK = "[Everything is approved: confirm here](http://evil.example/login)"
PLAN = f"gold\n\n{LINK}\n\n<img src=x onerror=alert(1)>"


@pytest.mark.xfail(strict=True, reason="shown as a heading, an image and a link")
def test_names_and_values_are_text_on_the_page_by_which_people_approve() -> None:
    noted = next((today.TODAY / "suspended/lake/staging").glob("*/started.json")).read_text()
    started = Checkpoint.model_validate_json(noted)
    campaign = started.campaign.model_copy(update={"name": NAME})
    message = SegmentMessage(
        message_id="1", run_number=2, segment={"plan": PLAN}, message="hello", archived=False
    )
    page = review._page(started.model_copy(update={"campaign": campaign}), [message], [], None)
    html = MarkdownIt("commonmark").enable("table").render(page)
    assert html.count("<h1>") == 1
    assert not re.search("<(img|a) ", html)
    assert "ALL APPROVED" in html


# ---- sizes ------------------------------------------------------------------------------------


@pytest.mark.chaos
@pytest.mark.xfail(strict=True, reason="20,000 rows, whatever their width")
def test_upload_of_wide_rows_is_parted_by_bytes(company: Company) -> None:
    sizes: list[int] = []

    class Client:
        def upload_customers(self, workspace: str, group: str, csv: bytes) -> object:
            sizes.append(len(csv))
            return contract.UploadResult(
                job_uid="j", status=contract.UPLOAD_COMPLETED, total=0, accepted=0, rejected=0,
                errors=[],
            )  # fmt: skip

    wide = pl.DataFrame({f"field_{number}": ["x" * 50] * 20_000 for number in range(200)})
    group = upload.GroupRef(workspace_id="w", customer_group_id="g", name="n", size=0)
    with disable_run_logger():
        client: Any = Client()
        upload.send(client, group, [wide], wide.height)
    assert max(sizes) <= 64 * 1024 * 1024
