"""Campaigns, their publication, and the files of their messages."""

from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from tests.conformance import DOC, OURS, lists, statements_of, stories
from tests.conformance.stories import Story, View
from tests.conformance.wire import CAMPAIGN_LIST, Account, has_shape, refusal, utc
from tests.conftest import Company, Sandbox

states, states_everywhere = statements_of("Campaigns and messages"), statements_of("Everywhere")
states_again = statements_of("Found in a second reading")

FETCH = "/v1/messages/fetch"
MOST_ROWS_AS_JSON = 1000


def published(account: Account, **period: datetime) -> bool:
    """Return whether the list of campaigns published in a period has the account's."""
    body = {f"published_{name}": time.isoformat() for name, time in period.items()}
    workspaces = account.ask(CAMPAIGN_LIST.path, body)["workspaces"]
    ids = [one["campaign_id"] for each in workspaces for one in each["campaigns"]]
    return account.access.campaign_id in ids


def rows(account: Account, file_num: int = 0) -> list[lists.Customer]:
    return lists.parsed(account.fetch("utf8", file_num)["content"])


# ---- campaigns --------------------------------------------------------------------------------


@states("`POST /v1/campaign/all` -> `{workspaces: [{workspace_id, name, campaigns: [...]}]}`", DOC)
def test_campaigns_are_grouped_by_workspace(account: Account) -> None:
    workspaces = account.ask(CAMPAIGN_LIST.path, {})["workspaces"]
    assert all(has_shape(one, workspace_id=str, name=str, campaigns=list) for one in workspaces)
    ids = [one["workspace_id"] for one in workspaces]
    assert len(ids) == len({*ids})
    (own,) = [one for one in workspaces if one["workspace_id"] == account.access.workspace_id]
    assert account.campaign() in own["campaigns"]


@states("status, stage, dates", DOC)
@states("`{campaign_id, name, ..., customer_group_id, current_run, published_at}`", OURS)
def test_campaign_has_status_stage_dates_group_and_run(account: Account) -> None:
    campaign = account.campaign()
    assert has_shape(campaign, campaign_id=str, name=str, current_run=int, published_at=str)
    assert has_shape(campaign, status=str, stage=str | None)
    assert has_shape(campaign, start_date=str | None, end_date=str | None)
    assert campaign["status"] == "Published"
    dates = [campaign["start_date"], campaign["end_date"]]
    assert all(each is None or date.fromisoformat(each) for each in dates)
    assert campaign["customer_group_id"] == account.access.customer_group_id
    assert campaign["current_run"] == account.runs()[0]["run_number"]


@states("date filter: `published_from?`", DOC)
@states("date filter: `published_to?`", DOC)
def test_campaigns_are_filtered_by_publication(account: Account) -> None:
    at, second = utc(account.campaign()["published_at"]), timedelta(seconds=1)
    assert published(account, **{"from": at - second})
    assert not published(account, **{"from": at + second})
    assert published(account, to=at + second)
    assert not published(account, to=at - second)
    assert published(account, **{"from": at - second, "to": at + second})


# ---- publish ----------------------------------------------------------------------------------


@states('`POST /v1/messages/publish` `{campaign_id}` -> `{job_uid, status: "queued"}`', DOC)
@states("In *Published* it exports again, idempotently", OURS)
def test_publish_again_queues_an_export_and_changes_nothing(account: Account) -> None:
    before, files = View.of(account), account.num_files()
    page = account.fetch("utf8")["content"]
    first, second = (account.ask_campaign("/v1/messages/publish") for _ in range(2))
    assert has_shape(first, job_uid=str)
    assert first["status"] == "queued"
    assert first["job_uid"] != second["job_uid"]
    assert View.of(account) == before
    assert (account.num_files(), account.fetch("utf8")["content"]) == (files, page)


@states("a campaign in *Ready to publish* goes to *Published* with all its current messages", DOC)
def test_publish_sets_campaign_and_messages_to_published(story: Story) -> None:
    assert story.approved.campaign["status"] == "Ready to publish"
    assert story.published.campaign["status"] == "Published"
    texts = [message["message"] for message in story.published.messages]
    assert texts == [message["message"] for message in story.approved.messages]
    stages = {message["approval_stage"] for message in story.published.messages}
    assert stages == {"Published"}
    later = utc(story.published.campaign["published_at"])
    assert later > utc(story.first.campaign["published_at"])


@states("in any other state 400 `Campaign is not ready to publish.`", OURS)
def test_publish_in_another_state_is_refused(fresh: Account, company: Company) -> None:
    for status in ("Draft", "Processing", "Ready for review"):
        stories.put_into(company, status)
        answer = fresh.refused_campaign("/v1/messages/publish")
        assert answer == (400, "Campaign is not ready to publish.")
        assert fresh.campaign()["status"] == status


@states("publish checks the quota", DOC)
@states_everywhere("quota exceeded: 429 `Usage limit reached.` with `Retry-After`", OURS)
def test_publish_above_the_quota_is_refused(fresh: Account, company: Company) -> None:
    customers = stories.ready_to_publish(fresh)
    stories.set_quota(company, len(customers) - 1)
    which = {"campaign_id": fresh.access.campaign_id}
    response = fresh.call("POST", "/v1/messages/publish", which)
    assert refusal(response) == (429, "Usage limit reached.")
    assert int(response.headers["retry-after"]) > 0
    assert fresh.campaign()["status"] == "Ready to publish"
    stories.set_quota(company, 2 * len(customers) - 1)
    assert stories.publish(fresh, customers)
    # What an earlier run has published counts.
    stories.ready_to_publish(fresh)
    assert fresh.refused_campaign("/v1/messages/publish") == (429, "Usage limit reached.")
    stories.set_quota(company, 2 * len(customers))
    fresh.ask_campaign("/v1/messages/publish")


@states_everywhere("`Campaign/details not found.` (404: campaign without audience)", DOC)
@states_everywhere("`Campaign/details not found.` (404: campaign without messages)", DOC)
@states_again(
    "`Campaign/details not found.` is answered before anything about the campaign's state", OURS
)
@pytest.mark.parametrize("lost", ["audience", "messages"])
def test_publish_without_audience_or_messages_is_not_found(
    fresh: Account, company: Company, lost: str
) -> None:
    if lost == "audience":
        body = {"customer_group_id": fresh.access.customer_group_id}
        fresh.ask("/v1/cg", body, verb="DELETE")
    else:
        stories.drop_messages(company)
    for status in ("Published", "Ready to publish", "Draft", "Processing", "Ready for review"):
        stories.put_into(company, status)
        answer = fresh.refused_campaign("/v1/messages/publish")
        assert answer == (404, "Campaign/details not found."), status


# ---- pages ------------------------------------------------------------------------------------


@states("without `run_number` only files directly in the campaign's folder", DOC)
@states("with `run_number`, the files in that past run's sub-folder", DOC)
def test_files_of_a_past_run_are_in_its_folder(story: Story) -> None:
    assert story.account.num_files() == 1
    assert story.account.fetch("utf8")["content"] == story.pages[3]
    counts = {number: story.account.num_files(run_number=number) for number in (1, 2, 3, 99)}
    assert counts == {1: 1, 2: 1, 3: 0, 99: 0}


@states("There is no job-status endpoint: this count is how a client sees an export finish", DOC)
def test_count_of_files_shows_the_end_of_an_export(controls: Sandbox, story: Story) -> None:
    paths = httpx.get(f"{controls.url}/openapi.json").json()["paths"]
    assert not [path for path in paths if path.startswith("/v1/") and "job" in path]
    # The story published by this count alone, and each page was whole when the count was.
    assert [len(lists.parsed(story.pages[run])) for run in (2, 3)] == [
        len(story.groups[run]) for run in (2, 3)
    ]


# ---- fetch ------------------------------------------------------------------------------------


@states("`POST /v1/messages/pages` `{campaign_id, run_number?}` -> `{num_files}`", DOC)
@states("`file_num` 0-based", DOC)
@states_everywhere("`File not found.` (404)", DOC)
def test_files_are_counted_from_0(account: Account) -> None:
    answer = account.ask_campaign("/v1/messages/pages")
    assert has_shape(answer, num_files=int)
    files = answer["num_files"]
    assert files > 0
    assert rows(account, 0)
    assert rows(account, files - 1)
    for export_type in ("utf8", "json", "url"):
        answer = account.refused_campaign(FETCH, file_num=files, export_type=export_type)
        assert answer == (404, "File not found.")


@states_everywhere("`Invalid export option.` (401)", DOC)
def test_fetch_of_an_unknown_export_type_is_refused(account: Account) -> None:
    for export_type in ("xml", "UTF8", ""):
        answer = account.refused_campaign(FETCH, file_num=0, export_type=export_type)
        assert answer == (401, "Invalid export option.")


@states_everywhere("`Failed to parse.` (500)", DOC)
@states_again(
    "**Errors**: `Failed to parse.` whenever an exported file cannot be read as UTF-8 CSV with its "
    "two columns, for each export type but `url`",
    DOC,
)
@pytest.mark.parametrize(
    "damaged",
    [
        b"customer_id,message\r\n1\r\n",
        b"customer_id,message\r\n1,\xff\r\n",
        b"customer_\xff,message\r\n1,a\r\n",
        b"customer_id\r\n1\r\n",
        b"message,customer_id\r\na,1\r\n",
        b"customer_id,text\r\n1,a\r\n",
        b"customer_id,message,more\r\n1,a,b\r\n",
        b'customer_id,message\r\n1,"a\r\n',
        b"",
    ],
    ids=str,
)
def test_fetch_of_a_damaged_file_is_a_500(fresh: Account, company: Company, damaged: bytes) -> None:
    company.page_file().write_bytes(damaged)
    for export_type in ("utf8", "json"):
        answer = fresh.refused_campaign(FETCH, file_num=0, export_type=export_type)
        assert answer == (500, "Failed to parse."), export_type
    assert httpx.get(fresh.fetch("url")["url"]).content == damaged


@pytest.mark.usefixtures("controls")
@states("publish queues the CSV export: a message for each customer of the group", OURS)
def test_files_have_a_message_for_each_customer(account: Account) -> None:
    assert account.num_files() > 2
    ids = [row["customer_id"] for n in range(account.num_files()) for row in rows(account, n)]
    group = {"customer_group_id": account.access.customer_group_id}
    assert len({*ids}) == len(ids)
    assert {*ids} == {*lists.profiles(account, group)}


@states('fetch `utf8` -> `{content: "<csv text>"}`', DOC)
@states("fetch `json` -> `{messages: [{customer_id, message}]}`", DOC)
@states("fetch `json`: at most 1000 rows", DOC)
@states("CSV columns `customer_id,message`", OURS)
def test_fetch_gives_csv_or_at_most_1000_messages(account: Account) -> None:
    for number in {0, account.num_files() - 1}:
        answer = account.fetch("utf8", number)
        assert has_shape(answer, content=str)
        assert answer["content"].startswith("customer_id,message\r\n")
        messages = account.fetch("json", number)["messages"]
        assert all(has_shape(one, customer_id=str, message=str) for one in messages)
        assert messages == lists.parsed(answer["content"])[:MOST_ROWS_AS_JSON]


@pytest.mark.usefixtures("controls")
@states("fetch `json`: at most 1000 rows, of a file with more", DOC)
@states("`customer_id` is text, leading zeros kept", OURS)
def test_fetch_json_gives_1000_of_more_rows(account: Account) -> None:
    page, messages = rows(account), account.fetch("json")["messages"]
    assert len(page) > MOST_ROWS_AS_JSON
    assert len(messages) == MOST_ROWS_AS_JSON
    assert page[0]["customer_id"] == messages[0]["customer_id"] == "000001"


@states("fetch `url` -> `{url, expires_at}`, pre-signed", DOC)
@states("fetch `url`: about 1 hour", DOC)
@states("UTF-8, RFC 4180", OURS)
def test_fetch_url_gives_a_signed_link_for_an_hour(account: Account) -> None:
    link = account.fetch("url")
    assert has_shape(link, url=str, expires_at=str)
    left = utc(link["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=50) < left < timedelta(minutes=70)
    # Pre-signed: no header of the account is sent.
    answer = httpx.get(link["url"])
    assert answer.status_code == 200
    page = answer.content.decode("utf-8")
    assert page == account.fetch("utf8")["content"]
    assert {len(row) for row in lists.parsed(page)} == {2}
    assert page.endswith("\r\n")
    assert page.count('"') % 2 == 0


@states("fetch `url`: not after `expires_at`, and not changed", DOC)
def test_link_expired_or_changed_is_refused(watched: stories.Watched, account: Account) -> None:
    link = watched.account.fetch("url")
    assert utc(link["expires_at"]) <= datetime.now(UTC)
    assert httpx.get(link["url"]).status_code == 403
    longer = httpx.URL(account.fetch("url")["url"])
    later = longer.copy_merge_params({"expires": str(int(longer.params["expires"]) + 60)})
    assert httpx.get(later).status_code == 403


@states("fetch `url`: **not for past runs**", DOC)
@states("400 `Pre-signed URL export is not available for historical runs.`", OURS)
def test_fetch_url_of_a_past_run_is_refused(story: Story) -> None:
    for run_number in (1, 2):
        fields = {"file_num": 0, "export_type": "url", "run_number": run_number}
        answer = story.account.refused_campaign(FETCH, **fields)
        assert answer == (400, "Pre-signed URL export is not available for historical runs.")


@states(
    "fetch `{campaign_id, file_num, export_type, run_number?}`: a past run stays as it was", DOC
)
def test_fetch_of_a_past_run_is_unchanged(story: Story) -> None:
    for run_number in (1, 2):
        page = story.account.fetch("utf8", run_number=run_number)["content"]
        assert page == story.pages[run_number]
        messages = story.account.fetch("json", run_number=run_number)["messages"]
        assert messages == lists.parsed(page)


@pytest.mark.usefixtures("controls")
@states("messages hold commas, quotes, line breaks and any Unicode", OURS)
def test_message_holds_any_text(account: Account) -> None:
    group = {"customer_group_id": account.access.customer_group_id}
    profiles = lists.profiles(account, group)
    for row in rows(account):
        profile = profiles[row["customer_id"]]
        greeting = f"Dear {profile['first_name']} {profile['last_name']},\n\n"
        assert row["message"].startswith(greeting)
    greetings = "".join(row["message"] for row in rows(account))
    assert all(one in greetings for one in (",", '"', "\r\n", "y\nJ", "李", "محمد", "한별", "🙂"))
