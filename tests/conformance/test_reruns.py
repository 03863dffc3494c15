from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conformance import lists, stories
from tests.conformance.statements import DOC, OURS, statements_of
from tests.conformance.stories import NEW_SEGMENTS, Failure, Segment, Story, View, Watched
from tests.conformance.wire import (
    CAMPAIGN_ENDPOINTS,
    CONTENT_ENDPOINTS,
    UNKNOWN,
    Account,
    Object,
    has_shape,
    utc,
)
from tests.conftest import Company, Sandbox

states = statements_of("Reruns")

INITIATE = "/v1/campaign/rerun/initiate"
PHASES = ["Copying", "Generating", "Archiving", "Finalising"]
Keys = set[tuple[str, ...]]


def keys(segments: list[Segment]) -> Keys:
    """Return segments as a set; fail if one comes twice."""
    found = [tuple(segment[name] for name in sorted(segment)) for segment in segments]
    assert len(found) == len({*found})
    return {*found}


def keys_of(messages: list[Object]) -> Keys:
    return keys([message["segment"] for message in messages])


def keys_among(customers: list[lists.Customer]) -> Keys:
    """Return the distinct combinations of the campaign's variables, plan and region."""
    return {(one["plan"], one["region"]) for one in customers}


def compared(started: Object) -> tuple[Keys, Keys, Keys]:
    comparison = started["comparison"]
    return tuple(keys(comparison[f"{name}_segments"]) for name in ("matched", "new", "orphaned"))


def texts(messages: list[Object]) -> dict[tuple[str, ...], str]:
    return {keys_of([message]).pop(): message["message"] for message in messages}


# ---- initiate ---------------------------------------------------------------------------------


@pytest.mark.sandbox
@states(
    "`POST /v1/campaign/rerun/initiate` -> `{run: {...}, comparison: {matched_segments, "
    "new_segments, orphaned_segments}}`",
    DOC,
)
def test_initiate_answers_with_run_and_comparison(story: Story) -> None:
    assert has_shape(story.started, run=dict, comparison=dict)
    comparison = story.started["comparison"]
    assert has_shape(comparison, matched_segments=list, new_segments=list, orphaned_segments=list)
    assert story.started["run"]["run_number"] == 2


@pytest.mark.sandbox
@states("One atomic step: run record", DOC)
def test_initiate_records_the_run_at_once(watched: Watched) -> None:
    started, first = watched.during.runs
    assert [first] == watched.first.runs
    assert (started["run_number"], started["status"]) == (2, "Processing")
    assert started["customer_group_id"] == watched.started["run"]["customer_group_id"]


@pytest.mark.sandbox
@states("One atomic step: campaign state", DOC)
def test_initiate_changes_the_campaign_at_once(watched: Watched) -> None:
    campaign = watched.during.campaign
    assert (campaign["status"], campaign["current_run"]) == ("Processing", 2)
    assert campaign["customer_group_id"] == watched.started["run"]["customer_group_id"]


@pytest.mark.sandbox
@states("One atomic step: archive of the previous run's messages", DOC)
def test_initiate_archives_the_messages_at_once(watched: Watched) -> None:
    assert not [one for one in watched.during.messages if one["run_number"] == 1]
    assert all(message["archived"] for message in watched.archived)
    assert texts(watched.archived) == texts(watched.first.messages)


@pytest.mark.sandbox
@states("One atomic step: job queued", DOC)
def test_initiate_queues_the_job_at_once(watched: Watched) -> None:
    assert watched.started["run"]["job_uid"]
    assert watched.during.runs[0]["job_uid"] == watched.started["run"]["job_uid"]


@states("One atomic step: a refused initiate leaves everything as it was", DOC)
def test_refused_initiate_changes_nothing(account: Account) -> None:
    before = View.of(account)
    for group_id in (UNKNOWN, account.campaign()["customer_group_id"]):
        status, _ = account.refused_campaign(INITIATE, new_customer_group_id=group_id)
        assert status in (400, 404)
    assert View.of(account) == before


@pytest.mark.sandbox
@states("One atomic step: of several initiates at the same moment one begins a run", DOC)
def test_concurrent_initiates_begin_one_rerun(fresh: Account) -> None:
    customers = stories.customers_in(NEW_SEGMENTS)
    groups = [stories.new_group(fresh, f"Group {number}", customers) for number in range(4)]

    def initiate(group: Object) -> int:
        body = {**fresh.ids, "new_customer_group_id": group["customer_group_id"]}
        del body["workspace_id"], body["customer_group_id"]
        return fresh.call("POST", INITIATE, body).status_code

    with ThreadPoolExecutor(len(groups)) as pool:
        assert sorted(pool.map(initiate, groups)) == [200, 400, 400, 400]
    stories.settle(fresh)
    assert [run["run_number"] for run in fresh.runs()] == [2, 1]


@pytest.mark.sandbox
@states("Needs status Published", DOC)
def test_initiate_of_an_unpublished_campaign_changes_nothing(
    fresh: Account, company: Company
) -> None:
    group = stories.new_group(fresh, "Others", stories.customers_in(NEW_SEGMENTS))
    which = group["customer_group_id"]
    for status in ("Draft", "Processing", "Ready for review", "Ready to publish"):
        stories.put_into(company, status)
        before = View.of(fresh)
        assert fresh.refused_campaign(INITIATE, new_customer_group_id=which)[0] == 400
        assert View.of(fresh) == before


@pytest.mark.sandbox
@states("Needs every current message Published", DOC)
def test_initiate_with_an_unpublished_message_changes_nothing(
    fresh: Account, company: Company
) -> None:
    stories.withdraw_one_message(company)
    group = stories.new_group(fresh, "Others", stories.customers_in(NEW_SEGMENTS))
    before = View.of(fresh)
    which = group["customer_group_id"]
    assert fresh.refused_campaign(INITIATE, new_customer_group_id=which)[0] == 400
    assert View.of(fresh) == before


# ---- the job ----------------------------------------------------------------------------------


@pytest.mark.sandbox
@states("Background phases in order: Copying, Generating, Archiving, Finalising", DOC)
def test_phases_are_in_order(watched: Watched) -> None:
    phases = [run["phase"] for run in watched.seen if run["phase"]]
    assert list(dict.fromkeys(phases)) == PHASES
    assert phases == sorted(phases, key=PHASES.index)


@pytest.mark.sandbox
@states("`status` while the job works: *Processing*", OURS)
def test_status_is_processing_while_the_job_runs(watched: Watched) -> None:
    *working, done = watched.seen
    assert {run["status"] for run in working} == {"Processing"}
    assert {run["completed_at"] for run in working} == {None}
    assert done["completed_at"]


@pytest.mark.sandbox
@states("Ends in *Ready for review* if any segment is new", DOC)
def test_run_with_new_segments_is_ready_for_review(story: Story, watched: Watched) -> None:
    assert story.started["comparison"]["new_segments"]
    assert story.reviewed.campaign["status"] == "Ready for review"
    assert story.reviewed.runs[0]["status"] == "Ready for review"
    assert watched.seen[-1]["status"] == "Ready for review"


@pytest.mark.sandbox
@states("Ends else in *Ready to publish*", DOC)
def test_run_without_new_segments_is_ready_to_publish(story: Story) -> None:
    assert not story.started_again["comparison"]["new_segments"]
    assert story.ready.campaign["status"] == "Ready to publish"
    assert story.ready.runs[0]["status"] == "Ready to publish"


@pytest.mark.sandbox
@states("a failed job: *Failed* with `error`", OURS)
def test_failed_job_has_status_and_error(failure: Failure) -> None:
    run = failure.last.runs[0]
    assert (run["run_number"], run["status"]) == (failure.started["run"]["run_number"], "Failed")
    assert run["error"]
    assert not failure.started["run"]["error"]


@pytest.mark.sandbox
@states("a failed job: the campaign back in its previous run", OURS)
def test_failed_job_restores_the_campaign(failure: Failure) -> None:
    assert failure.last.campaign == failure.first.campaign
    assert failure.last.messages == failure.first.messages
    assert failure.last.runs[1:] == failure.first.runs
    assert failure.page_after == failure.page


# ---- history ----------------------------------------------------------------------------------


@pytest.mark.sandbox
@states("`POST /v1/campaign/rerun/history` `{campaign_id}` -> `{runs: [...]}` newest first", DOC)
def test_history_has_the_newest_run_first(story: Story) -> None:
    assert [run["run_number"] for run in story.last.runs] == [3, 2, 1]
    started = [utc(run["started_at"]) for run in story.last.runs]
    assert started == sorted(started, reverse=True)


@pytest.mark.sandbox
@states("a campaign never rerun answers one synthesised Run #1", DOC)
def test_history_of_a_campaign_never_rerun_has_run_1(account: Account) -> None:
    (run,) = account.runs()
    assert (run["run_number"], run["status"]) == (1, "Published")
    assert run["customer_group_id"] == account.access.customer_group_id


@states(
    "Run: `{run_number, status, phase, customer_group_id, customer_group_name, segment_count, "
    "comparison_summary, job_uid, initiated_by, started_at, completed_at, error}`",
    OURS,
)
def test_run_object_has_its_names_and_types(account: Account) -> None:
    for run in account.runs():
        assert has_shape(run, run_number=int, status=str, phase=str | None, error=str | None)
        assert has_shape(run, customer_group_id=str | None, customer_group_name=str | None)
        assert has_shape(run, segment_count=int | None, comparison_summary=dict | None)
        assert has_shape(run, job_uid=str | None, initiated_by=str | None)
        assert has_shape(run, started_at=str | None, completed_at=str | None)


@pytest.mark.sandbox
@states("Run: group, job, user and times of a rerun", OURS)
def test_run_has_group_job_user_and_times(story: Story) -> None:
    run = story.last.runs[1]
    assert run["customer_group_name"] == "Second customers"
    assert run["initiated_by"] == story.account.claims["user_id"]
    assert run["job_uid"] == story.started["run"]["job_uid"]
    assert utc(run["started_at"]) <= utc(run["completed_at"])
    assert run["error"] is None


@pytest.mark.sandbox
@states("Run: `segment_count`, `comparison_summary: {matched, new, orphaned}`", OURS)
def test_run_summary_counts_the_segments(story: Story) -> None:
    run = story.reviewed.runs[0]
    matched, new, orphaned = map(len, compared(story.started))
    summary = {"matched": matched, "new": new, "orphaned": orphaned}
    assert run["comparison_summary"] == story.started["run"]["comparison_summary"] == summary
    assert run["segment_count"] == matched + new


@pytest.mark.sandbox
@states("A run counts from 1, the original campaign", DOC)
def test_run_numbers_count_from_1(story: Story) -> None:
    assert story.first.campaign["current_run"] == 1
    assert story.published.campaign["current_run"] == 2
    assert story.last.campaign["current_run"] == 3


# ---- segments ---------------------------------------------------------------------------------


@pytest.mark.sandbox
@states(
    "Segment: one distinct combination of the campaign's variables among the group's customers", DOC
)
def test_segments_are_the_distinct_combinations(story: Story) -> None:
    matched, new, _ = compared(story.started)
    assert not matched & new
    assert matched | new == keys_among(story.groups[2])
    assert len(story.groups[2]) > len(matched | new)
    assert keys_of(story.reviewed.messages) == matched | new


@pytest.mark.sandbox
@states("Matched: in both runs. New. Orphaned.", DOC)
def test_comparison_is_matched_new_and_orphaned(story: Story) -> None:
    before, after = keys_of(story.first.messages), keys_among(story.groups[2])
    assert compared(story.started) == (before & after, after - before, before - after)
    assert all(compared(story.started))
    assert compared(story.started_again) == (after, set(), set())


@pytest.mark.sandbox
@states("Matched: the approved message is copied", DOC)
def test_matched_message_is_copied(story: Story) -> None:
    matched, _, _ = compared(story.started)
    before, after = texts(story.first.messages), texts(story.reviewed.messages)
    # The template has changed since: a message written anew would read differently.
    assert {key: after[key] for key in matched} == {key: before[key] for key in matched}
    first = {message["review_status"] for message in story.first.messages}
    copied = [one for one in story.reviewed.messages if keys_of([one]) <= matched]
    assert {message["review_status"] for message in copied} == first


@pytest.mark.sandbox
@states("New: generated", DOC)
def test_new_message_is_generated(story: Story) -> None:
    _, new, _ = compared(story.started)
    after = texts(story.reviewed.messages)
    assert new <= {*after}
    assert all("in words that Run #1 did not have" in after[key] for key in new)


@pytest.mark.sandbox
@states("Orphaned: archived", DOC)
def test_orphaned_message_is_archived(story: Story) -> None:
    _, _, orphaned = compared(story.started)
    assert not orphaned & keys_of(story.reviewed.messages)
    archived = [message for message in story.archived if message["archived"]]
    assert orphaned <= keys_of(archived)


# ---- messages of runs -------------------------------------------------------------------------


@states(
    "`POST /v1/campaign/rerun/messages` `{campaign_id, run_number?}` -> `{messages: [{message_id, "
    "run_number, segment: {...}, message, review_status, approval_stage, archived}]}`",
    DOC,
)
def test_message_object_has_its_names_and_types(account: Account) -> None:
    messages = account.messages()
    assert messages
    for message in messages:
        assert has_shape(message, message_id=str, run_number=int, segment=dict, message=str)
        assert has_shape(message, review_status=str | None, approval_stage=str | None)
        assert has_shape(message, archived=bool)
        assert message["segment"]


@pytest.mark.sandbox
@states("with `run_number` that run's archived messages are included", DOC)
def test_messages_of_a_past_run_are_archived(story: Story) -> None:
    assert {message["run_number"] for message in story.archived} == {1}
    assert {message["archived"] for message in story.archived} == {True}
    assert texts(story.archived) == texts(story.first.messages)
    second = story.account.messages(run_number=2)
    assert texts(second) == texts(story.published.messages)


@states("without `run_number` only the current run's active messages", DOC)
def test_messages_without_run_number_are_active(account: Account) -> None:
    messages = account.messages()
    assert {message["run_number"] for message in messages} == {account.campaign()["current_run"]}
    assert {message["archived"] for message in messages} == {False}


@pytest.mark.sandbox
@states("without `run_number` only the *current* run's messages, after a rerun", DOC)
def test_messages_without_run_number_are_of_the_current_run(story: Story) -> None:
    assert {message["run_number"] for message in story.reviewed.messages} == {2}
    assert {message["run_number"] for message in story.last.messages} == {3}
    assert {message["archived"] for message in story.last.messages} == {False}


# ---- states and approval ----------------------------------------------------------------------


@pytest.mark.sandbox
@states("States in order: *Ready for review*, *Ready to publish*, *Published*", DOC)
def test_last_states_are_in_order(story: Story) -> None:
    views = [story.reviewed, story.approved, story.published]
    in_order = ["Ready for review", "Ready to publish", "Published"]
    assert [view.campaign["status"] for view in views] == in_order
    assert [view.runs[0]["status"] for view in views] == in_order


@pytest.mark.sandbox
@states("States in order: *Processing* comes before", OURS)
def test_processing_comes_before_review(watched: Watched) -> None:
    statuses = [run["status"] for run in watched.seen]
    assert list(dict.fromkeys(statuses)) == ["Processing", "Ready for review"]


@pytest.mark.sandbox
@states("There is **no** endpoint to approve messages", DOC)
def test_document_has_no_endpoint_to_approve(controls: Sandbox) -> None:
    paths = httpx.get(f"{controls.url}/openapi.json").json()["paths"]
    served = {(verb.upper(), path) for path in paths for verb in paths[path]}
    published = {(one.verb, one.path) for one in [*CONTENT_ENDPOINTS, *CAMPAIGN_ENDPOINTS]}
    sign_in = {("POST", "/v1/auth"), ("GET", "/v1/auth")}
    assert {one for one in served if one[1].startswith("/v1/")} == published | sign_in


@pytest.mark.sandbox
@states("the sandbox offers its own under `/sandbox/...`", OURS)
def test_sandbox_approves_messages(story: Story) -> None:
    first = {message["review_status"] for message in story.first.messages}
    before = {message["review_status"] for message in story.reviewed.messages}
    after = {message["review_status"] for message in story.approved.messages}
    assert before > first
    assert after == first
