"""What people or the service have named is shown as text, on every page that the tasks build."""

import html
import re
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import polars as pl
import pytest
from markdown_it import MarkdownIt

from nudgescribe import contract
from nudgescribe.contract import WorkspaceField
from tasks.campaigns import CampaignRef, RunRef
from tasks.customers.guardrails import Guardrails
from tasks.customers.mapping import FieldMapping
from tasks.customers.staging import Staged
from tasks.customers.sync import ListDiff
from tasks.customers.upload import GroupRef
from tasks.customers.validate import BrokenRule, Validated, validate_customers
from tasks.export.run_diff import RunDiffSummary
from tasks.inventory import report_inventory, take_inventory
from tasks.journal.refresh import Refresh
from tasks.portfolio import RefreshStatus, report_portfolio
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.plan import make_plan
from tasks.refresh.preview import Preview
from tasks.refresh.report import report_refresh, report_sync
from tasks.refresh.review import report_review
from tasks.refresh.run_shown import RunShown, Sample, SegmentSize
from tasks.retention.rules import Ages
from tasks.retention.sweep import list_candidates
from tasks.ui.artifacts import link_campaign
from tasks.ui.markdown import code_block, plain, quote_text
from tests.conftest import Company, Through, customers
from tests.support.response_tamperer import Changed, ResponseTamperer
from tests.tasks.conftest import Local
from tests.tasks.refresh.test_report import RESULT

NAME = (
    "Spring\n\n# ALL APPROVED: ![](http://evil.example/b.png) [confirm](http://evil.example)\r\n"
    "<img src=x onerror=alert(1)> | `code` *now* _now_ www.evil.example a@evil.example "
    "&lt; \u202e\\"
)
SHOWN = " ".join(NAME.replace("\u202e", "").split())
CUT = SHOWN[:25]  # names are cut, the shortest at 30
EARLY = datetime(2026, 1, 1, tzinfo=UTC)


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(markdown)


def text_of(markdown: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", rendered(markdown)))


class Shown:
    """All texts of the artifacts that tasks create."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, *contents: Any, **named: Any) -> UUID:
        for content in (*contents, named.get("table"), named.get("description")):
            rows = content if isinstance(content, list) else [{"": content}]
            self.texts += [str(cell) for row in rows for cell in row.values() if cell is not None]
        return uuid4()

    def check(self, least: int = 1) -> None:
        """Every text with the name shows it, and holds no markup of its."""
        named = [text for text in self.texts if "ALL APPROVED" in text]
        assert len(named) >= least
        for text in named:
            read = " ".join(text_of(text).split())
            assert SHOWN in read or CUT in read
            page = rendered(text)
            assert not re.search(r"<img src=.?(x|http)|href=.?http://evil|<em>now", page)
            assert page.count("<h1>") <= 1
            assert not re.search(r"(?<!\\)://evil|www\.evil|[^\\]@evil", text)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, local: Local) -> Shown:
    shown = Shown()
    for name, module in list(sys.modules.items()):
        for kind in ("table", "markdown", "link", "progress"):
            if name.startswith("tasks.") and hasattr(module, f"create_{kind}_artifact"):
                monkeypatch.setattr(module, f"create_{kind}_artifact", shown)
    return shown


@pytest.fixture
def campaign(company: Company) -> CampaignRef:
    return CampaignRef(
        campaign_id=company.seeded.campaign_id,
        name=NAME,
        workspace_id=company.seeded.workspace_id,
        previous_run=1,
        previous_group=None,
        previous_pages=3,
    )


GROUP = GroupRef(workspace_id="w", customer_group_id="g", name=NAME, size=1)
SHOWN_RUN = RunShown(
    segments=[SegmentSize(name=NAME, customers=1, is_new=True)],
    samples=[Sample(segment=NAME, message=f"{NAME}\n\n# b\n")],
)
VALIDATED = Validated(
    accepted=Staged(path="x", rows=1, sha256=""),
    extracted=2,
    rejected=1,
    quarantine="quarantine/|`x`.parquet",
    key="customer_id",
    fingerprint="",
)


def test_reports_show_names_as_text(shown: Shown, local: Local) -> None:
    changes = {
        "campaign": NAME,
        "group": NAME,
        "broken_rules": [BrokenRule(field=NAME, code=NAME, rows=1)],
        "run_diff": RunDiffSummary(problem=NAME),
    }
    report_refresh.fn(local.account, local.lake, RESULT.model_copy(update=changes), SHOWN_RUN)
    report_sync.fn(
        local.lake, GROUP, VALIDATED, ListDiff(added=1, changed=0, removed=0, unchanged=0)
    )
    shown.check(least=4)


def test_plan_shows_names_as_text(
    shown: Shown, company: Company, local: Local, refresh: Refresh, campaign: CampaignRef
) -> None:
    with company.client() as client:
        mapping = FieldMapping(rules=client.list_fields(campaign.workspace_id), sources={})
    staged = local.staged(customers(20))
    validated = validate_customers.fn(mapping, staged, local.lake, refresh, "c")
    told = validated.model_copy(update={"quarantine": f"{NAME} {SHOWN}"})
    few = Guardrails(min_rows=30)
    make_plan.fn(local.account, campaign, told, local.lake, refresh, few)
    shown.check(least=3)
    assert any("fewer than 30" in text for text in shown.texts)


def test_review_shows_names_and_segments_as_text(
    shown: Shown, local: Local, campaign: CampaignRef, through: Through
) -> None:
    message = {
        "message_id": "1",
        "run_number": 2,
        "segment": {NAME: NAME},
        "message": f"{NAME}\n\n````\n{NAME}",
        "archived": False,
    }
    answers = [httpx.Response(200, json={"messages": each}) for each in ([message], [])]
    through(ResponseTamperer({contract.RERUN_MESSAGES: answers}))
    run = RunRef(campaign_id="c", run_number=2, customer_group_id="g", job_uid=None)
    expected = Preview(matched=0, new=1, orphaned=0, customers_in_new=1, before=None)
    page = report_review.fn(
        local.account,
        Checkpoint(campaign=campaign, validated=VALIDATED, expected=expected, group=GROUP, run=run),
    )
    shaped = rendered(page)
    assert (shaped.count("<blockquote>"), shaped.count("<pre>")) == (1, 0)
    assert not re.search("<(img|a) ", shaped)
    assert text_of(page).count("ALL APPROVED") == 5
    assert "ALL APPROVED" in shown.texts[1]


def test_inventory_shows_names_and_states_as_text(
    shown: Shown, local: Local, refresh: Refresh, through: Through
) -> None:
    def rename(body: Any) -> None:
        (workspace,) = body["workspaces"]
        workspace["name"] = NAME
        workspace["campaigns"][0] |= {"name": NAME, "status": f"{NAME} $x^$"}

    through(Changed(contract.CAMPAIGNS, rename))
    taken = take_inventory.fn(local.account, local.lake, [], refresh)
    report_inventory.fn(local.account, local.lake, taken, refresh)
    shown.check(least=4)


def test_tables_show_names_and_reasons_as_text(
    shown: Shown, company: Company, local: Local, refresh: Refresh, through: Through
) -> None:
    linked = local.account.model_copy(update={"campaign_url": "https://x/{campaign_id}"})
    failed = RefreshStatus(campaign_id=NAME, message=NAME, state=NAME)
    report_portfolio.fn(local.account, [failed], {NAME: NAME})
    link_campaign.fn(linked, "c", NAME)
    with company.client() as client:
        client.create_group(company.seeded.workspace_id, SHOWN, refresh.marker(reused=False))
    old = {"created_at": EARLY.isoformat(), "updated_at": EARLY.isoformat()}
    through(Changed(contract.GROUPS, lambda body: [one.update(old) for one in body["groups"]]))
    sweep = refresh.model_copy(update={"id": "sweep", "journal": "journals/sweep"})
    list_candidates.fn(local.lake, local.account, Ages(groups_days=30), sweep)
    shown.check(least=3)


def test_rejected_rows_show_fields_as_text(shown: Shown, local: Local, refresh: Refresh) -> None:
    rules = [field("id", unique=True), field(SHOWN)]
    staged = local.staged(pl.DataFrame({"id": ["1"], SHOWN: ["a\0b"]}))
    mapping = FieldMapping(rules=rules, sources={})
    validate_customers.fn(mapping, staged, local.lake, refresh, "c")
    shown.check()


def field(name: str, *, unique: bool = False) -> WorkspaceField:
    return WorkspaceField(
        field_id=name,
        workspace_id="w",
        field_name=name,
        display_name=name,
        field_type="string",
        unique=unique,
    )


TEXTS = """- a|+ a|=== a|--- a|1. a|2026) a|12.|> a|# a #|a\\|_a_ b_c_d __e__|**a** `b``c`
~~a~~ <b>c</b>|&amp; <http://a>|[a]: b|![a](b)|http://a https://b ftp://c www.d.e WWW.d a@b.c
1.5 % (3 of 200)."""


@pytest.mark.parametrize("text", [*TEXTS.replace("\n", "|").split("|"), "a | b"])
@pytest.mark.parametrize("frame", ["{}", "# {}", "- {}", "| x |\n|---|\n| {} |"])
def test_plain_text_is_shown_as_it_is(frame: str, text: str) -> None:
    expected = rendered(frame.format("X")).replace("X", html.escape(text))
    assert rendered(frame.format(plain(text))) == expected


@pytest.mark.parametrize("text", ["a", "a`b", "`a``", "a\n\n# b", "{a}"])
def test_code_is_shown_as_it_is(text: str) -> None:
    assert rendered(quote_text(f"{text}\n\n> # {text}")).count("<blockquote>") == 1
    assert rendered(code_block(f"{text}\n```\n{text}")).count("<code>") == 1
