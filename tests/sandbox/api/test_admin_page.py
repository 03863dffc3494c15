"""The admin page in a browser, and its errors without one."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from nudgescribe import contract
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from sandbox.api.admin_page import ENDPOINTS
from sandbox.data.models import Account, Campaign, Usage
from sandbox.engine import quota
from sandbox.settings import Settings
from tests.conftest import Company, Sandbox, customers, serving
from tests.sandbox.conftest import new_group, rerun
from tests.support.browser import chromium
from tests.support.sandboxes import NewSandbox

SCRIPT = "<script>document.title = 'It ran'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'It ran'\">"


@pytest.fixture(scope="session")
def sandbox(new_sandbox: NewSandbox) -> Sandbox:
    """A sandbox of these tests: its page does not show what all others have left."""
    return new_sandbox(rows_per_file=100)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, sandbox: Sandbox) -> Iterator[Page]:
    page = browser.new_page(base_url=sandbox.url)
    yield page
    page.close()


@pytest.fixture
def no_faults(sandbox: Sandbox) -> Iterator[None]:
    yield
    sandbox.app.state.faults.clear()


def campaign_on(page: Page, company: Company) -> Locator:
    return page.locator(f"#campaign-{company.seeded.campaign_id}")


def account_on(page: Page, company: Company) -> Locator:
    return page.locator(f"#account-{company.seeded.account_id}")


def test_run_page_shows_segments_and_approve_button_approves(
    page: Page, company: Company, client: NudgescribeClient
) -> None:
    rerun(company, client)
    page.goto("/")
    campaign = campaign_on(page, company)
    expect(campaign).to_contain_text("current run 2")
    _, second, first = campaign.get_by_role("row").all()
    for text in ("100 new", Status.READY_FOR_REVIEW):
        expect(second).to_contain_text(text)
    expect(second).not_to_contain_text("Finalising")  # its job is done
    for text in ("First customers", Status.PUBLISHED):
        expect(first).to_contain_text(text)

    second.get_by_role("link", name="Segments of run 2").click()
    expect(page).to_have_title("Run 2 of Welcome back")
    messages = client.rerun_messages(company.seeded.campaign_id)
    shown = [row.get_by_role("cell").all() for row in page.get_by_role("row").all()[1:]]
    assert [
        (text.inner_text(), review.inner_text(), archived.inner_text())
        for _, text, review, archived in shown
    ] == [(message.message, message.review_status, "no") for message in messages]
    for (segment, *_), message in zip(shown, messages, strict=True):
        for value in message.segment.values():
            expect(segment).to_contain_text(value)
    page.goto(f"/page/campaigns/{company.seeded.campaign_id}/runs/1")
    before = client.rerun_messages(company.seeded.campaign_id, 1)
    expect(page.get_by_role("cell", name="archived", exact=True)).to_have_count(len(before))
    page.get_by_role("link", name="Overview").click()

    campaign.get_by_role("button", name="Approve").click()
    expect(campaign.get_by_role("row").nth(1)).to_contain_text(Status.READY_TO_PUBLISH)
    expect(campaign.get_by_role("button")).to_have_count(0)
    assert client.rerun_history(company.seeded.campaign_id)[0].status == Status.READY_TO_PUBLISH


def test_run_page_shows_messages_as_customers_get_them(
    page: Page, company: Company, client: NudgescribeClient
) -> None:
    rerun(company, client)
    page.goto(f"/page/campaigns/{company.seeded.campaign_id}/runs/2")
    samples = page.get_by_role("article")
    expect(samples).to_have_count(3)
    for sample, name in zip(samples.all(), ("Alex Morgan", "María", "Jun Tanaka"), strict=True):
        expect(sample).to_contain_text(f"Dear {name}")
        expect(sample).to_contain_text("has something new for you")
        assert "{{" not in sample.inner_text()
    expect(samples.first).to_contain_text("student")  # what is new comes first
    page.get_by_role("link", name="Run 1").click()
    expect(page).to_have_title("Run 1 of Welcome back")


def test_overview_shows_earlier_windows_and_calls(
    page: Page, company: Company, client: NudgescribeClient
) -> None:
    account = company.seeded.account_id
    window = quota.current_window(company.sandbox.settings).number - 1
    with company.sandbox.context.store.write() as session:
        session.add(Usage(account_id=account, window=window, generated=1234, messages=5678))
    client.list_groups(company.seeded.workspace_id)
    page.goto("/")
    account_on(page, company).get_by_text("Earlier windows").click()
    expect(account_on(page, company).get_by_role("row", name="1,234 5,678")).to_be_visible()
    calls = page.locator("section", has=page.locator("#calls"))
    newest = calls.get_by_role("row").nth(1)
    for text in (company.seeded.email, contract.GROUPS, "200"):
        expect(newest).to_contain_text(text)
    assert httpx.post(f"{company.sandbox.url}{contract.GROUPS}", json={}).status_code == 403
    page.reload()
    expect(newest).to_contain_text("403")


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_as_wide_as_the_window(
    browser: Browser, company: Company, client: NudgescribeClient, width: int
) -> None:
    rerun(company, client)
    run = f"/page/campaigns/{company.seeded.campaign_id}/runs/2"
    size: ViewportSize = {"width": width, "height": 900}
    with browser.new_page(base_url=company.sandbox.url, viewport=size) as page:
        for path in ("/", run):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("calls", "said"), [(1, "once"), (2, "2 times"), (0, "0 times")])
def test_overview_counts_calls_for_pages_in_words(
    page: Page, company: Company, client: NudgescribeClient, calls: int, said: str
) -> None:
    for _ in range(calls):
        client.count_message_pages(company.seeded.campaign_id)
    page.goto("/")
    expect(account_on(page, company)).to_contain_text(f"pages counted {said}; window ends")


def test_failed_run_shows_its_error_and_no_messages(
    page: Page, company: Company, client: NudgescribeClient
) -> None:
    reason = rerun(company, client, 0).error
    assert reason
    page.goto("/")
    expect(campaign_on(page, company)).to_contain_text(reason)
    expect(page.locator("section", has=page.locator("#jobs"))).to_contain_text(reason)
    page.goto(f"/page/campaigns/{company.seeded.campaign_id}/runs/2")
    expect(page.locator("main")).to_contain_text("No messages yet.")


@pytest.mark.usefixtures("no_faults")
def test_fault_form_switches_a_fault_on_and_clear_button_off(page: Page, sandbox: Sandbox) -> None:
    def call() -> httpx.Response:
        return httpx.post(f"{sandbox.url}/v1/auth", json={})

    assert call().status_code == 401
    page.goto("/")
    page.get_by_label("endpoint").select_option("/v1/auth")
    page.get_by_label("status").fill("503")
    page.get_by_label("retry_after").fill("7")
    page.get_by_label("rate").fill("1")
    page.get_by_label("times").fill("1")
    page.get_by_role("button", name="Switch fault on").click()
    switch = page.locator("#switches tbody tr")
    expect(switch).to_have_text("/v1/auth status 503 retry_after 7 times 1 0")
    answer = call()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    page.reload()
    expect(switch.get_by_role("cell").last).to_have_text("1")

    page.get_by_label("truncate").check()
    page.get_by_label("drop").select_option("before the call is seen")
    page.get_by_label("endpoint").select_option("/exports/")
    page.get_by_role("button", name="Switch fault on").click()
    expect(switch).to_have_count(2)
    expect(switch.last).to_contain_text("drop before truncate True")
    page.get_by_role("button", name="Clear all faults").click()
    expect(switch).to_have_count(0)
    assert call().status_code == 401


def test_quota_form_sets_shows_and_lifts_a_quota(
    page: Page, company: Company, client: NudgescribeClient
) -> None:
    def messages() -> int | None:
        with company.sandbox.context.store.read() as session:
            return session.get_one(Account, company.seeded.account_id).quota

    rerun(company, client)
    page.goto(company.sandbox.url.replace("127.0.0.1", "localhost"))
    account = account_on(page, company)
    expect(account).to_contain_text("4 messages: 4 generated, 0 published")
    campaign_on(page, company).get_by_role("button", name="Approve").click()
    client.publish(company.seeded.campaign_id)
    account.get_by_label("Quota").fill("1500")
    account.get_by_role("button", name="Set quota").click()
    expect(account).to_contain_text("104 of 1,500 messages: 4 generated, 100 published")
    assert messages() == 1500
    account.get_by_label("Quota").fill("")
    account.get_by_role("button", name="Set quota").click()
    expect(account).to_contain_text("104 messages: 4 generated, 100 published")
    assert messages() is None


def test_hostile_text_is_shown_and_not_run(
    page: Page, company: Company, client: NudgescribeClient
) -> None:
    seeded = company.seeded
    with company.sandbox.context.store.write() as session:
        campaign = session.get_one(Campaign, seeded.campaign_id)
        campaign.template, campaign.name = f"Dear {SCRIPT}", f"Name {SCRIPT}"
    hostile = customers(20).with_columns(plan=pl.lit(IMAGE))
    group = new_group(client, seeded, hostile, f"Group {SCRIPT}")
    client.initiate_rerun(seeded.campaign_id, group)
    company.settle(client)

    page.goto("/")
    campaign = campaign_on(page, company)
    expect(campaign).to_contain_text(f"Name {SCRIPT}")
    expect(campaign).to_contain_text(f"Group {SCRIPT}")
    expect(page).to_have_title("Nudgescribe sandbox")
    campaign.get_by_label("Segments of run 2").click()
    expect(page).to_have_title(f"Run 2 of Name {SCRIPT}")
    expect(page.get_by_text(f"Dear {SCRIPT}").first).to_be_visible()
    expect(page.get_by_text(IMAGE).first).to_be_visible()
    expect(page.locator("script, img")).to_have_count(0)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/page/campaigns/{campaign}/approve", 400, "Campaign is not ready for review."),
        ("POST", "/page/campaigns/unknown/approve", 404, "Campaign not found."),
        ("GET", "/page/campaigns/unknown/runs/1", 404, "Campaign not found."),
        ("GET", "/page/campaigns/{campaign}/runs/9", 404, "Run not found."),
        ("GET", "/page/campaigns/{campaign}/runs/99999999999", 400, "run_number: "),
        ("GET", "/page/campaigns/{campaign}/runs/one", 400, "run_number: "),
        ("POST", "/page/campaigns/%00/approve", 400, "campaign_id: "),
        ("POST", "/page/accounts/unknown/quota", 404, "Account not found."),
        ("POST", "/page/accounts/{account}/quota?-1", 400, "messages: "),
        ("POST", "/page/accounts/{account}/quota?many", 400, "messages: "),
        ("POST", "/page/accounts/{account}/quota?1.5", 400, "messages: "),
        ("POST", "/page/accounts/{account}/quota?2147483648", 400, "messages: "),
    ],
)
def test_wrong_call_is_answered_with_a_page(
    company: Company, method: str, path: str, status: int, text: str
) -> None:
    """What stands after a question mark is sent as the form's `messages`."""
    one = company.seeded
    path, _, messages = path.format(campaign=one.campaign_id, account=one.account_id).partition("?")
    answer = httpx.request(method, company.sandbox.url + path, data={"messages": messages})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert text in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "200"),
        ("status", "many"),
        ("retry_after", "-1"),
        ("delay", "nan"),
        ("drop", "sometimes"),
        ("rate", "0"),
        ("times", "0"),
        ("endpoint", "v1"),
        ("endpoint", ""),
        ("what", SCRIPT),
        (SCRIPT, "1"),
    ],
)
def test_invalid_fault_is_refused(sandbox: Sandbox, field: str, value: str) -> None:
    form = {"endpoint": "/v1/auth", "status": "503", field: value}
    answer = httpx.post(f"{sandbox.url}/page/faults", data=form)
    assert answer.status_code == 400
    assert field.replace(SCRIPT, "&lt;script&gt;") in answer.text
    assert "<script" not in answer.text
    assert httpx.get(f"{sandbox.url}/sandbox/faults").json() == {"faults": []}


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null"])
def test_cross_origin_call_is_refused(company: Company, origin: str) -> None:
    for path in (
        "faults",
        "faults/clear",
        f"accounts/{company.seeded.account_id}/quota",
        f"campaigns/{company.seeded.campaign_id}/approve",
    ):
        url = f"{company.sandbox.url}/page/{path}"
        answer = httpx.post(url, headers={"origin": origin})
        assert answer.status_code == 403
        assert "controlled from its own page" in answer.text


@pytest.mark.usefixtures("no_faults")
def test_faults_do_not_fire_for_the_admin_page(sandbox: Sandbox) -> None:
    httpx.post(f"{sandbox.url}/page/faults", data={"endpoint": "/", "status": "500"})
    assert httpx.get(sandbox.url).status_code == 200
    back = httpx.post(f"{sandbox.url}/page/faults/clear")
    assert (back.status_code, back.headers["location"]) == (303, "/")


def test_page_of_an_empty_sandbox_names_the_seed_command(tmp_path: Path) -> None:
    with serving(Settings(data=tmp_path)) as service:
        assert "python -m sandbox seed" in httpx.get(service.url).text


def test_fault_form_offers_every_path_of_the_api(sandbox: Sandbox) -> None:
    paths = httpx.get(f"{sandbox.url}/openapi.json").json()["paths"]
    assert {path for path in paths if path.startswith("/v1/")} | {"/v1/", "/exports/"} == {
        *ENDPOINTS
    }
    assert not [path for path in paths if path.startswith("/page") or path == "/"]
