"""A refresh among others: other servers, other people, other answers than it expects."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import polars as pl
import pytest
from markdown_it import MarkdownIt
from prefect.client.orchestration import get_client
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed, Running

from blocks import DataLake, FileCrm
from flows.export import export_messages
from flows.options import ExportOptions, RefreshOptions
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from flows.retention import RetentionOptions, lake_retention
from flows.review import resume_reviewed
from nudgescribe import contract, rfc4180
from nudgescribe.contract import SegmentMessage
from nudgescribe.errors import ContractMismatch, NudgeflowError
from nudgescribe.retry import RetryPolicy
from sandbox.data.models import Campaign
from tasks import campaigns
from tasks.journal.refresh import Refresh
from tasks.customers import upload
from tasks.customers.guardrails import Guardrails
from tasks.export import run
from tasks.refresh import review
from tasks.refresh.checkpoint import Checkpoint
from tests import today
from tests.cases.claims import claim
from tests.cases.judging import wrong
from tests.conftest import Company, Save, Through, customers
from tests.flows.test_today import GOOD, Bring, left
from tests.support.deployed import Deployed, changes, deployed
from tests.support.response_tamperer import ResponseTamperer


__all__ = ["deployed", "left"]

PUBLISH, UPLOAD = "POST /v1/messages/publish", "POST /v1/customer/check"
ROOT = Path(__file__).parents[2]


# ---- other flow runs --------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="taken for ended, and worked on by both")
@pytest.mark.parametrize("overlap", ["skip", "join"])
def test_flow_run_of_another_server_is_not_taken_for_ended(
    prefect_server: None, tmp_path: Path, overlap: Any
) -> None:
    lake = DataLake(root=str(tmp_path / "lake"))
    with temporary_settings({PREFECT_API_URL: "http://other.example/api"}):
        claim(lake, "C", str(uuid4()), kept=True)
    try:
        claimed = claim(lake, "C", str(uuid4()), overlap)
        assert claimed.refresh is None
        said = claimed.message
    except NudgeflowError as error:
        said = str(error)
    assert "other.example" in said


CHILD = """
import sys
from blocks import DataLake
from nudgescribe.errors import NudgeflowError
from tests.cases.claims import claim
try:
    print("taken" if claim(DataLake(root=sys.argv[1]), "C", sys.argv[2]).refresh else "left")
except NudgeflowError:
    print("left")
"""


@pytest.mark.chaos
@pytest.mark.skipif(os.geteuid() != 0, reason="unshare needs root")
@pytest.mark.xfail(strict=True, reason="taken for dead by its process id")
def test_live_process_of_another_pid_namespace_is_not_taken_for_dead(
    prefect_server: None, tmp_path: Path
) -> None:
    with get_client(sync_client=True) as client:
        first, second = (client.create_flow_run(nothing, state=Running()).id for _ in range(2))
    root = str(tmp_path / "lake")
    claim(DataLake(root=root), "C", str(first), kept=True)
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    apart = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", CHILD]
    child = subprocess.run(
        [*apart, root, str(second)], env=environment, cwd=ROOT, capture_output=True, check=True
    )
    assert child.stdout.decode().split()[-1] == "left"


# ---- the group and the list while people review -----------------------------------------------


@pytest.mark.xfail(strict=True, reason="fails at the export, as does every later refresh")
def test_customer_erased_in_the_review_is_told_and_the_others_are_published(
    left: Bring, deployed: Deployed
) -> None:
    refresh = left("suspended", export_minutes=0.05)
    place = refresh.ids["workspace_id"], refresh.ids["customer_group_id"]
    with refresh.company.client() as client:
        erased = next(iter(client.customers(*place))).customer_id
        client.delete_customers(*place, [erased])
    refresh.approve()
    resume_reviewed()
    state = deployed.work(refresh.run)
    if state.name == "Completed":
        assert refresh.messages().height == GOOD - 1
    else:
        assert state.message is not None
        assert "erased" in state.message
        assert "Retry this flow run" not in state.message


@pytest.mark.xfail(strict=True, reason="the messages of the other list are published")
def test_reused_group_that_has_changed_is_not_published(
    reviewed_company: Company, save: Save, through: Through
) -> None:
    company, changed = reviewed_company, list[str]()
    others = customers(240).tail(120)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == contract.RERUN_INITIATE and not changed:
            changed.append(json.loads(request.content)["new_customer_group_id"])
            with company.client() as client:
                place = company.seeded.workspace_id, changed[0]
                client.delete_customers(*place, customers(120)["customer_id"].to_list())
                client.upload_customers(*place, rfc4180.write(others))
        return real.handle_request(request)

    real = httpx.HTTPTransport()
    saved = save(company, customers(120))
    through(ResponseTamperer(answer=answer))
    options = RefreshOptions(
        guardrails=Guardrails(max_shrink=1),
        group="reuse",
        group_name="All customers",
        export_minutes=0.001,
    )
    names = {"account": saved.account, "crm": saved.crm, "lake": saved.lake}
    with pytest.raises(NudgeflowError) as caught:
        campaign_refresh(company.seeded.campaign_id, **names, options=options)
    assert PUBLISH not in changes(company)
    assert "All customers" in str(caught.value)
    assert "changed" in str(caught.value)


@pytest.mark.xfail(strict=True, reason="it says that no rerun was started; one was")
def test_overdue_refresh_keeps_its_list_or_is_published_without(left: Bring) -> None:
    refresh = left("suspended")
    with get_client(sync_client=True) as client:
        overdue = Failed(name="ReviewOverdue")
        client.set_flow_run_state(refresh.run, overdue, force=True)
    old = datetime.now(UTC).timestamp() - 8.01 * 86400
    for path in Path(refresh.lake.root, "staging").rglob("*"):
        os.utime(path, (old, old))
    account = refresh.company.account()
    lake_retention(refresh.lake, account, options=RetentionOptions(dry_run=False))
    refresh.approve()
    state = publish_campaign(refresh.ids["campaign_id"], account, refresh.lake, return_state=True)
    if state.name == "Completed":
        assert refresh.messages().height == GOOD
    else:
        assert "list" in str(state.message)
        assert "No refresh" not in str(state.message)


@pytest.mark.xfail(strict=True, reason="today's list goes into the group that was reviewed")
def test_lake_that_was_moved_in_the_review_is_refused(
    left: Bring, deployed: Deployed, tmp_path: Path
) -> None:
    refresh = left("suspended", crm="file-crm/main")
    customers(40).tail(30).write_csv(tmp_path / "today.csv")
    FileCrm(path=str(tmp_path / "today.csv")).save("main", overwrite=True)
    moved = str(tmp_path / "new-lake")
    DataLake(root=moved).save("main", overwrite=True)
    before = changes(refresh.company)
    refresh.approve()
    resume_reviewed()
    state = deployed.work(refresh.run)
    assert changes(refresh.company) == before
    assert moved in str(state.message)
    assert refresh.lake.root in str(state.message)


@pytest.mark.xfail(strict=True, reason="run 1's messages are run 2's in the lake")
def test_pages_of_the_run_before_are_not_taken(company: Company, save: Save) -> None:
    saved, campaign_id = save(company, customers(1)), company.seeded.campaign_id
    with company.client() as client:
        group = client.create_group(company.seeded.workspace_id, "Ours").customer_group_id
        everybody = rfc4180.write(customers(300))
        client.upload_customers(company.seeded.workspace_id, group, everybody)
        client.initiate_rerun(campaign_id, group)
        company.settle(client)
        company.sandbox.approve(campaign_id).raise_for_status()
        client.publish(campaign_id)
    with company.sandbox.context.store.write() as store:  # the new pages are not in place yet
        store.get_one(Campaign, campaign_id).exported_run = 1
    names = {"account": saved.account, "lake": saved.lake}
    with pytest.raises(NudgeflowError):
        export_messages(campaign_id, **names, options=ExportOptions(export_minutes=0.001))
    assert saved.lake.manifest(campaign_id, 2) is None


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


@pytest.mark.xfail(strict=True, reason="they are in the lake's bucket")
def test_results_are_not_kept_where_others_write() -> None:
    told = (ROOT / "docs/kubernetes.md").read_text()
    (kept,) = re.findall(r'RemoteFileSystem\(basepath="s3://([^/"]+)', told)
    assert kept != "lake"


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
