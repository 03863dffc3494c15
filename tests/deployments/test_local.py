"""The local stack as people use it: `nudgeflow demo` and `up`, Prefect's UI, the sandbox's page."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, TimeoutError, ViewportSize, expect

from deployments import up
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from nudgescribe.contract import Status
from tasks.customers.guardrails import Guardrails
from tests.support.browser import chromium
from tests.support.clock import until

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/img"
API = f"{up.PREFECT_URL}/api"
SECONDS = 150.0
# High, for the UI draws only what can be seen.
SIZE: ViewportSize = {"width": 1280, "height": 1500}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": API}
REFRESH = "campaign-refresh/refresh-now"
REVIEWS = "resume-reviewed/resume-reviewed"
NOTE = "Read and found good"

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def demo(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start the demo in a project of a server that is away, with packages that have our names."""
    folder.mkdir()
    for name in ("blocks", "flows", "tasks"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    (folder / ".env").write_text("PREFECT_API_URL=http://127.0.0.1:9/api\n")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "deployments.command", "demo", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_demo_tells_results_in_sentences_or_it_says_why_it_failed(tmp_path: Path) -> None:
    lake, file = tmp_path / "some lake", tmp_path / "list.csv"
    file.write_text("id,plan\n1,a\n2,b\n2,b\n")
    with (
        demo(tmp_path / "good", "--lake", str(lake)) as good,
        demo(tmp_path / "bad", "--list", str(file), "--segments", "plan") as bad,
    ):
        _, refused = bad.communicate()
        printed, errors = good.communicate()
    assert bad.returncode == 1
    assert refused.startswith("The demo failed: 1 customer identifier occurs more than once")
    assert good.returncode == 0, errors
    assert len(printed.splitlines()) < 25
    assert errors == ""
    assert "customers were added, 100 removed, plan legacy became plan student" in printed
    assert "5,000 rows came from the CRM; 51 were rejected." in printed
    assert "Run 2 has 4,949 messages. 4 of its 16 segments are new; 4 were removed." in printed
    # Those on a new plan: legacy has become student.
    assert (
        "1,280 of 4,850 customers received a different message; 99 were added, 150 removed."
        in printed
    )
    assert str(lake) in printed
    assert len(list(lake.rglob("part-*.parquet"))) == 2
    assert "\x1b[" not in printed + errors


@contextmanager
def running(folder: Path) -> Generator[list[str]]:
    """`nudgeflow up` in an empty folder; yields what it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.command", "up"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    printed: list[str] = []
    reader = Thread(target=printed.extend, args=(process.stdout,))
    reader.start()
    try:
        until(lambda: any("Ctrl-C ends all of it" in line for line in printed), process)
        yield printed
    finally:
        print(*printed)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
            reader.join()
            process.stdout.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """None of pytest's folders, which are root's alone: its PostgreSQL runs as another account."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(base_url=up.PREFECT_URL, viewport=SIZE)
        page.set_default_timeout(SECONDS * 1000)
        expect.set_options(SECONDS * 1000)
        yield page


def ask(path: str, **filters: Any) -> Any:
    return httpx.post(f"{API}/{path}", json=filters, timeout=60).raise_for_status().json()


def deployment(name: str) -> dict[str, Any]:
    return httpx.get(f"{API}/deployments/name/{name}").raise_for_status().json()


def run(deployment: str) -> "subprocess.Popen[bytes]":
    """Starts a flow run and watches it to its end."""
    command = [sys.executable, "-m", "prefect", "deployment", "run", deployment, "--watch"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)


def refreshes() -> list[dict[str, Any]]:
    """The flow runs started by hand, the newest first."""
    by_hand = {"id": {"any_": [deployment(REFRESH)["id"]]}}
    return ask("flow_runs/filter", deployments=by_hand, sort="EXPECTED_START_TIME_DESC")


def descriptions() -> Iterator[str]:
    """Of campaign-refresh's parameters and of all that is in them and not hidden."""
    yield from (each["description"] for each in campaign_refresh.parameters.properties.values())
    for model in (RefreshOptions, Guardrails):
        fields = model.model_json_schema()["properties"].values()
        yield from (each["description"] for each in fields)


def take_picture(page: Page, name: str, height: int) -> None:
    """As people see it, without the folder the stack happens to run in."""
    page.set_viewport_size({"width": SIZE["width"], "height": height})
    page.evaluate(
        """() => document.querySelectorAll("code").forEach(code => {
            if (!code.childElementCount)
                code.textContent = code.textContent.replace(/^.*\\.local/, ".local")
        })"""
    )
    page.screenshot(path=PICTURES / f"{name}.png")
    page.set_viewport_size(SIZE)


def submit(form: Page | Locator, gone: Callable[..., None]) -> None:
    """A click that a busy form does not hear, or a busy server refuses, is repeated."""
    button = form.get_by_role("button", name="Submit")

    def submitted() -> bool:
        with suppress(TimeoutError):
            button.click(timeout=20_000)
        try:
            gone(timeout=20_000)
        except TimeoutError:
            return False
        return True

    until(submitted)


def start(page: Page) -> str:
    """Campaign-refresh, from its form; the flow run's id."""
    page.goto("/deployments")
    page.get_by_placeholder("Search deployments").fill("refresh-now")  # it is on the second page
    row = page.get_by_role("row").filter(has_text="campaign-refresh").filter(has_text="refresh-now")
    row.get_by_role("link", name="refresh-now").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    form = page.locator("form")
    for said in descriptions():
        expect(form).to_contain_text(said)
    order = re.compile("Source: .*Safety: .*Review: .*Advanced: ", re.DOTALL)
    expect(form).to_contain_text(order)
    expect(form).not_to_contain_text("downloads")
    # Account, CRM and lake: the pickers show what is chosen.
    expect(form.get_by_text("main", exact=True)).to_have_count(3)
    take_picture(page, "form", 900)
    # The UI's labels are not bound to their inputs.
    growth = page.locator(".schema-form-property").filter(has_text="Max Growth").last
    growth.locator("input").fill("2")
    submit(page, partial(page.wait_for_url, re.compile(r"^(?!.*/run\?)")))
    (started,) = until(refreshes)
    return started["id"]


def open_artifact(page: Page, kind: str) -> None:
    """The newest of its kind on a flow run's page, as soon as it is there."""

    def artifact(kind: str) -> Locator:
        return page.get_by_role("link").filter(has_text=f"{kind}-welcome-back-").first

    def there() -> bool:
        page.reload()
        page.get_by_text("Artifacts", exact=True).click()
        artifact("campaign").wait_for()
        return artifact(kind).count() > 0

    until(there)
    artifact(kind).click()


def watch(page: Page) -> None:
    """The rerun's progress moves."""
    open_artifact(page, "rerun")
    progress = page.get_by_text(re.compile(r"Progress: \d+%"))
    first = progress.inner_text()

    def moved() -> bool:
        page.reload()
        return progress.inner_text() != first

    until(moved)


def review(page: Page) -> None:
    """People read the new messages, approve them in the platform, and resume with a word."""
    expect(page.get_by_text("Suspended", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    form = page.get_by_role("dialog")
    expect(form).to_contain_text("Welcome back: run 2 is awaiting review")
    expect(form.get_by_role("row", name="segments new, message to review 4")).to_be_visible()
    with page.expect_popup() as opened:
        form.get_by_role("link", name="the campaign").click()
    take_picture(page, "review", 1000)
    with opened.value as platform:
        platform.get_by_role("button", name="Approve").click()
        expect(platform.get_by_role("cell", name=Status.READY_TO_PUBLISH)).to_be_visible()
    form.locator("textarea").fill(NOTE)
    submit(form, partial(form.wait_for, state="hidden"))
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()


def read(page: Page, *rows: str) -> None:
    """The report, as whoever looks after the campaign reads it."""
    open_artifact(page, "refresh")
    expect(page.get_by_text("4,949 messages, one for each customer of the list.")).to_be_visible()
    for row in ("from the CRM 5,000", "new, messages written and reviewed 4", *rows):
        expect(page.get_by_role("row", name=row)).to_be_visible()
    for name in ("Rows", "Segments", "Messages", "Messages of the last runs"):
        chart = page.get_by_alt_text(name, exact=True)
        assert chart.evaluate("image => image.naturalWidth") > 0
    quoted = page.locator("blockquote").first
    expect(quoted).to_contain_text("Dear Alex Morgan")
    assert "{{" not in quoted.inner_text()
    take_picture(page, "report", 2700)


def latest(key: str) -> dict[str, Any]:
    """The newest artifact of the shortest key that begins like this."""
    found = [one for one in ask("artifacts/latest/filter") if one["key"].startswith(key)]
    return min(found, key=lambda one: len(one["key"]))


def other_pages(page: Page) -> None:
    """The pages of other flows show their numbers in a window of this size, and no chart of one bar
    for the only campaign.
    """
    for name in (
        "sync-customers/sync-customers-daily",
        "campaign-inventory/campaign-inventory-daily",
    ):
        with run(name) as running:
            assert running.wait(SECONDS) == 0
    page.goto(f"/artifacts/artifact/{latest('sync-all-customers')['latest_id']}")
    for row in ("extracted from the CRM 5,000", "rejected 51 (1 %)", "added 4,949"):
        shown = page.get_by_role("row", name=row)
        expect(shown).to_be_visible()
        box = shown.bounding_box()
        assert box
        assert box["x"] + box["width"] < SIZE["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZE["width"]
    page.goto(f"/artifacts/artifact/{latest('inventory-main')['latest_id']}")
    expect(page.get_by_role("row", name="Published 1")).to_be_visible()
    expect(page.get_by_alt_text("Campaigns by status")).to_have_count(0)


def refresh_again(folder: Path) -> str:
    """From a terminal, with new segments; woken by the deployment that looks at reviews."""
    with closing(sqlite3.connect(folder / ".local/crm.db")) as crm, crm:
        crm.execute("UPDATE customers SET plan = 'pupil' WHERE plan = 'student'")
    campaign = deployment(REFRESH)["parameters"]["campaign_id"]
    with run(REFRESH) as refresh:
        until(lambda: refreshes()[0]["state_name"] == "Suspended", refresh)
        approve = f"http://127.0.0.1:{up.SANDBOX_PORT}/sandbox/campaigns/{campaign}/approve"
        httpx.post(approve).raise_for_status()
        with run(REVIEWS) as looking:
            assert looking.wait(SECONDS) == 0
        assert refresh.wait(SECONDS) == 0
    return refreshes()[0]["id"]


def test_refresh_is_started_watched_reviewed_and_read_in_the_browser(
    home: Path, page: Page
) -> None:
    with running(home) as printed:
        # Planned runs show that the server's scheduler works with what is installed beside it.
        of_it = {"id": {"any_": [deployment(REVIEWS)["id"]]}}
        until(lambda: ask("flow_runs/filter", deployments=of_it))
        # It could come between a person's approval and their resumption.
        often = f"{API}/deployments/{deployment(REVIEWS)['id']}"
        httpx.patch(often, json={"paused": True}).raise_for_status()
        refresh = start(page)
        page.goto(f"/runs/flow-run/{refresh}")
        watch(page)
        page.goto(f"/runs/flow-run/{refresh}")
        review(page)
        read(page, "customers 5,000 4,949 −51", "1 5,000", "2 4,949")
        (first,) = refreshes()
        assert first["name"] == "Welcome back, run 2"
        assert {"campaign: Welcome back", "workspace: Marketing"} <= {*first["tags"]}
        of_run = {"flow_run_id": {"any_": [refresh]}, "level": {"ge_": 20}}
        said = [log["message"] for log in ask("logs/filter", logs=of_run, sort="TIMESTAMP_DESC")]
        last = next(line for line in said if not line.startswith(("Finished", "Flow run")))
        assert f"{up.PREFECT_URL}/artifacts/artifact/" in last
        assert len(list((home / ".local/lake").rglob("_manifest-*.json"))) == 2

        page.goto(f"/runs/flow-run/{refresh_again(home)}")
        read(page, "customers 4,949 4,949 0")
        assert len(list((home / ".local/lake").rglob("_manifest-*.json"))) == 3
        other_pages(page)
        wanted = {"slug": {"any_": ["nudgescribe-campaign-rerun", "file-crm"]}}
        assert len(ask("block_types/filter", block_types=wanted)) == 2
        # Nobody has asked for any other.
        wanted = {"id": {"any_": [deployment("campaign-refresh/refresh-monthly")["id"]]}}
        assert ask("flow_runs/filter", deployments=wanted) == []
        with pytest.raises(SystemExit, match=f"Port {up.PREFECT_PORT} is in use"):
            up.up()
    assert any("Prefect stores in PostgreSQL." in line for line in printed)
    for unwanted in ("database is locked", "Traceback"):
        assert not any(unwanted in line for line in printed), "".join(printed)
    with pytest.raises(httpx.ConnectError):
        httpx.get(API)
