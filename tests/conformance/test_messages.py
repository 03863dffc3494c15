from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from tests.conformance import lists, stories
from tests.conformance.statements import DOC, OURS, statements_of
from tests.conformance.stories import Story, View
from tests.conformance.wire import CAMPAIGN_LIST, Account, Object, has_shape, utc
from tests.conftest import Company, Sandbox

states = statements_of("Campaigns and messages")

MOST_ROWS_AS_JSON = 1000


def published(account: Account, **period: datetime) -> bool:
    """Return whether the list of campaigns published in a period has the account's."""
    body = {f"published_{name}": time.isoformat() for name, time in period.items()}
    workspaces = account.ask(CAMPAIGN_LIST.path, body)["workspaces"]
    ids = [one["campaign_id"] for each in workspaces for one in each["campaigns"]]
    return account.access.campaign_id in ids


def publish(account: Account) -> Object:
    return account.ask_campaign("/v1/messages/publish")


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
def test_campaign_has_status_stage_and_dates(account: Account) -> None:
    campaign = account.campaign()
    assert has_shape(campaign, status=str, stage=str | None)
    assert has_shape(campaign, start_date=str | None, end_date=str | None)
    assert campaign["status"] == "Published"
    dates = [campaign["start_date"], campaign["end_date"]]
    assert all(each is None or date.fromisoformat(each) for each in dates)


@states("`{campaign_id, name, ..., customer_group_id, current_run, published_at}`", OURS)
def test_campaign_has_group_and_run(account: Account) -> None:
    campaign = account.campaign()
    assert has_shape(campaign, campaign_id=str, name=str, current_run=int, published_at=str)
    assert campaign["customer_group_id"] == account.access.customer_group_id
    assert campaign["current_run"] == account.runs()[0]["run_number"]


@states("date filter: `published_from?`", DOC)
def test_campaigns_are_filtered_by_published_from(account: Account) -> None:
    at, second = utc(account.campaign()["published_at"]), timedelta(seconds=1)
    assert published(account, **{"from": at - second})
    assert not published(account, **{"from": at + second})


@states("date filter: `published_to?`", DOC)
def test_campaigns_are_filtered_by_published_to(account: Account) -> None:
    at, second = utc(account.campaign()["published_at"]), timedelta(seconds=1)
    assert published(account, to=at + second)
    assert not published(account, to=at - second)
    assert published(account, **{"from": at - second, "to": at + second})


# ---- publish ----------------------------------------------------------------------------------


@states('`POST /v1/messages/publish` `{campaign_id}` -> `{job_uid, status: "queued"}`', DOC)
def test_publish_queues_an_export(account: Account) -> None:
    answer = publish(account)
    assert has_shape(answer, job_uid=str)
    assert answer["status"] == "queued"


@pytest.mark.sandbox
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


@states("In *Published* it exports again, idempotently", OURS)
def test_publish_again_changes_nothing(account: Account) -> None:
    before, files = View.of(account), account.num_files()
    page = account.fetch("utf8")["content"]
    first, second = publish(account), publish(account)
    assert first["job_uid"] != second["job_uid"]
    assert View.of(account) == before
    assert (account.num_files(), account.fetch("utf8")["content"]) == (files, page)


@pytest.mark.sandbox
@states("in any other state 400 `Campaign is not ready to publish.`", OURS)
def test_publish_in_another_state_is_refused(fresh: Account, company: Company) -> None:
    for status in ("Draft", "Processing", "Ready for review"):
        stories.put_into(company, status)
        answer = fresh.refused_campaign("/v1/messages/publish")
        assert answer == (400, "Campaign is not ready to publish.")
        assert fresh.campaign()["status"] == status


@pytest.mark.sandbox
@states("publish checks the quota", DOC)
def test_publish_above_the_quota_is_refused(fresh: Account, company: Company) -> None:
    customers = stories.ready_to_publish(fresh)
    stories.set_quota(company, len(customers) - 1)
    assert fresh.refused_campaign("/v1/messages/publish")[0] == 429
    assert fresh.campaign()["status"] == "Ready to publish"
    stories.set_quota(company, len(customers))
    assert stories.publish(fresh, customers)


# ---- pages ------------------------------------------------------------------------------------


@states("`POST /v1/messages/pages` `{campaign_id, run_number?}` -> `{num_files}`", DOC)
def test_count_of_files_is_a_number(account: Account) -> None:
    answer = account.ask_campaign("/v1/messages/pages")
    assert has_shape(answer, num_files=int)
    assert answer["num_files"] > 0


@pytest.mark.sandbox
@states("without `run_number` only files directly in the campaign's folder", DOC)
def test_files_without_run_number_are_of_the_current_run(story: Story) -> None:
    assert story.account.num_files() == 1
    assert story.account.fetch("utf8")["content"] == story.pages[3]
    assert story.account.num_files(run_number=3) == 0


@pytest.mark.sandbox
@states("with `run_number`, the files in that past run's sub-folder", DOC)
def test_files_of_a_past_run_are_in_its_folder(story: Story) -> None:
    for run_number in (1, 2):
        assert story.account.num_files(run_number=run_number) == 1
    assert story.account.num_files(run_number=99) == 0


@pytest.mark.sandbox
@states("There is no job-status endpoint: this count is how a client sees an export finish", DOC)
def test_count_of_files_shows_the_end_of_an_export(controls: Sandbox, story: Story) -> None:
    paths = httpx.get(f"{controls.url}/openapi.json").json()["paths"]
    assert not [path for path in paths if path.startswith("/v1/") and "job" in path]
    # The story published by this count alone, and each page was whole when the count was.
    assert [len(lists.parsed(story.pages[run])) for run in (2, 3)] == [
        len(story.groups[run]) for run in (2, 3)
    ]


# ---- fetch ------------------------------------------------------------------------------------


@states("`file_num` 0-based", DOC)
def test_file_num_counts_from_0(account: Account) -> None:
    last = account.num_files() - 1
    assert rows(account, 0)
    assert rows(account, last)
    fields = {"file_num": last + 1, "export_type": "utf8"}
    assert account.refused_campaign("/v1/messages/fetch", **fields)[0] == 404


@pytest.mark.sandbox
@states("publish queues the CSV export: a message for each customer of the group", OURS)
def test_files_have_a_message_for_each_customer(account: Account) -> None:
    assert account.num_files() > 2
    ids = [row["customer_id"] for n in range(account.num_files()) for row in rows(account, n)]
    group = {"customer_group_id": account.access.customer_group_id}
    assert len({*ids}) == len(ids)
    assert {*ids} == {*lists.profiles(account, group)}


@states('fetch `utf8` -> `{content: "<csv text>"}`', DOC)
def test_fetch_utf8_gives_csv(account: Account) -> None:
    assert has_shape(account.fetch("utf8"), content=str)
    assert rows(account)


@states("fetch `json` -> `{messages: [{customer_id, message}]}`", DOC)
def test_fetch_json_gives_messages(account: Account) -> None:
    messages = account.fetch("json")["messages"]
    assert all(has_shape(one, customer_id=str, message=str) for one in messages)
    assert messages == rows(account)[: len(messages)]


@states("fetch `json`: at most 1000 rows", DOC)
def test_fetch_json_gives_at_most_1000_rows(account: Account) -> None:
    for number in {0, account.num_files() - 1}:
        messages = account.fetch("json", number)["messages"]
        assert len(messages) == min(MOST_ROWS_AS_JSON, len(rows(account, number)))


@pytest.mark.sandbox
@states("fetch `json`: at most 1000 rows, of a file with more", DOC)
def test_fetch_json_gives_1000_of_more_rows(account: Account) -> None:
    assert len(rows(account)) > MOST_ROWS_AS_JSON
    assert len(account.fetch("json")["messages"]) == MOST_ROWS_AS_JSON


@states("fetch `url` -> `{url, expires_at}`, pre-signed", DOC)
def test_fetch_url_gives_a_signed_link(account: Account) -> None:
    link = account.fetch("url")
    assert has_shape(link, url=str, expires_at=str)
    # Pre-signed: no header of the account is sent.
    page = httpx.get(link["url"])
    assert page.status_code == 200
    assert page.content == account.fetch("utf8")["content"].encode()


@states("fetch `url`: about 1 hour", DOC)
def test_link_lives_about_an_hour(account: Account) -> None:
    left = utc(account.fetch("url")["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=50) < left < timedelta(minutes=70)


@pytest.mark.sandbox
@states("fetch `url`: not after `expires_at`, and not changed", DOC)
def test_link_expired_or_changed_is_refused(watched: stories.Watched, account: Account) -> None:
    link = watched.account.fetch("url")
    assert utc(link["expires_at"]) <= datetime.now(UTC)
    assert httpx.get(link["url"]).status_code == 403
    longer = httpx.URL(account.fetch("url")["url"])
    later = longer.copy_merge_params({"expires": str(int(longer.params["expires"]) + 60)})
    assert httpx.get(later).status_code == 403


@pytest.mark.sandbox
@states("fetch `url`: **not for past runs**", DOC)
def test_fetch_url_of_a_past_run_is_refused(story: Story) -> None:
    for run_number in (1, 2):
        fields = {"file_num": 0, "export_type": "url", "run_number": run_number}
        assert story.account.refused_campaign("/v1/messages/fetch", **fields)[0] == 400


@pytest.mark.sandbox
@states("400 `Pre-signed URL export is not available for historical runs.`", OURS)
def test_fetch_url_of_a_past_run_has_its_text(story: Story) -> None:
    fields = {"file_num": 0, "export_type": "url", "run_number": 1}
    answer = story.account.refused_campaign("/v1/messages/fetch", **fields)
    assert answer == (400, "Pre-signed URL export is not available for historical runs.")


@pytest.mark.sandbox
@states(
    "fetch `{campaign_id, file_num, export_type, run_number?}`: a past run stays as it was", DOC
)
def test_fetch_of_a_past_run_is_unchanged(story: Story) -> None:
    for run_number in (1, 2):
        page = story.account.fetch("utf8", run_number=run_number)["content"]
        assert page == story.pages[run_number]
        messages = story.account.fetch("json", run_number=run_number)["messages"]
        assert messages == lists.parsed(page)


@states("CSV columns `customer_id,message`", OURS)
def test_file_has_the_two_columns(account: Account) -> None:
    for number in {0, account.num_files() - 1}:
        content = account.fetch("utf8", number)["content"]
        assert content.startswith("customer_id,message\r\n")


@states("UTF-8, RFC 4180", OURS)
def test_file_is_utf_8_and_rfc_4180(account: Account) -> None:
    page = httpx.get(account.fetch("url")["url"]).content.decode("utf-8")
    assert {len(row) for row in lists.parsed(page)} == {2}
    assert page.endswith("\r\n")
    assert page.count('"') % 2 == 0


@pytest.mark.sandbox
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


@pytest.mark.sandbox
@states("`customer_id` is text, leading zeros kept", OURS)
def test_customer_id_keeps_leading_zeros(account: Account) -> None:
    first = rows(account)[0]
    assert first["customer_id"] == "000001"
    assert account.fetch("json")["messages"][0] == first
