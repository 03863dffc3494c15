"""Reruns: how one begins, what its job does to segments and messages, and how it ends."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sandbox.data.models import Run
from tests.conformance import DOC, OURS, lists, statements_of, stories
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

states, states_everywhere = statements_of("Reruns"), statements_of("Everywhere")

INITIATE = "/v1/campaign/rerun/initiate"
PHASES = ["Copying", "Generating", "Archiving", "Finalising"]
NOT_PUBLISHED = (400, "Only Published campaigns can be rerun")
NOT_ALL_PUBLISHED = (
    400,
    "All campaign messages must be published before initiating a rerun",
)
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


def among(messages: list[Object], name: str) -> set[object]:
    """Return the values that the messages have of one of their names."""
    return {message[name] for message in messages}


# ---- initiate ---------------------------------------------------------------------------------


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


@states("One atomic step: run record", DOC)
@states("One atomic step: campaign state", DOC)
@states("One atomic step: job queued", DOC)
@states("One atomic step: archive of the previous run's messages", DOC)
def test_initiate_changes_run_campaign_messages_and_job_at_once(watched: Watched) -> None:
    run, first = watched.during.runs
    group_id, job_uid = (watched.started["run"][name] for name in ("customer_group_id", "job_uid"))
    assert [first] == watched.first.runs
    assert (run["run_number"], run["status"]) == (2, "Processing")
    assert run["customer_group_id"] == group_id
    assert job_uid
    assert run["job_uid"] == job_uid
    campaign = watched.during.campaign
    assert (campaign["status"], campaign["current_run"]) == ("Processing", 2)
    assert campaign["customer_group_id"] == group_id
    assert 1 not in among(watched.during.messages, "run_number")
    assert among(watched.archived, "archived") == {True}
    assert texts(watched.archived) == texts(watched.first.messages)


@states("One atomic step: a refused initiate leaves everything as it was", DOC)
@states_everywhere("`Customer group not found` (404)", DOC)
@states_everywhere("re-running onto the current run: 400 `Current run cannot be archived`", OURS)
def test_initiate_on_an_unknown_or_the_current_group_changes_nothing(account: Account) -> None:
    before = View.of(account)
    for group_id, refusal in (
        (UNKNOWN, (404, "Customer group not found")),
        (account.campaign()["customer_group_id"], (400, "Current run cannot be archived")),
    ):
        assert account.refused_campaign(INITIATE, new_customer_group_id=group_id) == refusal
    assert View.of(account) == before


@states("One atomic step: of several initiates at the same moment one begins a run", DOC)
def test_concurrent_initiates_begin_one_rerun(fresh: Account) -> None:
    customers = stories.customers_in(NEW_SEGMENTS)
    groups = [stories.new_group(fresh, f"Group {number}", customers) for number in range(4)]

    def initiate(group: Object) -> int:
        body = {"campaign_id": fresh.access.campaign_id}
        body["new_customer_group_id"] = group["customer_group_id"]
        return fresh.call("POST", INITIATE, body).status_code

    with ThreadPoolExecutor(len(groups)) as pool:
        assert sorted(pool.map(initiate, groups)) == [200, 400, 400, 400]
    stories.settle(fresh)
    assert [run["run_number"] for run in fresh.runs()] == [2, 1]


@states("Needs status Published", DOC)
@states_everywhere("`Only Published campaigns can be rerun` (400)", DOC)
@states("Needs every current message Published", DOC)
@states_everywhere("`All campaign messages must be published before initiating a rerun` (400)", DOC)
def test_initiate_before_all_is_published_changes_nothing(fresh: Account, company: Company) -> None:
    group = stories.new_group(fresh, "Others", stories.customers_in(NEW_SEGMENTS))

    def check_refused(refusal: tuple[int, str]) -> None:
        before, which = View.of(fresh), group["customer_group_id"]
        assert fresh.refused_campaign(INITIATE, new_customer_group_id=which) == refusal
        assert View.of(fresh) == before

    for status in ("Draft", "Processing", "Ready for review", "Ready to publish"):
        stories.put_into(company, status)
        check_refused(NOT_PUBLISHED)
    stories.put_into(company, "Published")
    stories.withdraw_one_message(company)
    check_refused(NOT_ALL_PUBLISHED)


# ---- the job ----------------------------------------------------------------------------------


@states("Background phases in order: Copying, Generating, Archiving, Finalising", DOC)
@states("`status` while the job works: *Processing*", OURS)
@states("States in order: *Processing* comes before", OURS)
def test_phases_are_in_order_while_the_run_is_processing(watched: Watched) -> None:
    phases = [run["phase"] for run in watched.seen if run["phase"]]
    assert list(dict.fromkeys(phases)) == PHASES
    assert phases == sorted(phases, key=PHASES.index)
    *working, done = watched.seen
    assert {run["status"] for run in working} == {"Processing"}
    assert {run["completed_at"] for run in working} == {None}
    assert done["status"] == "Ready for review"
    assert done["completed_at"]


@states("Ends in *Ready for review* if any segment is new", DOC)
@states("Ends else in *Ready to publish*", DOC)
@states("States in order: *Ready for review*, *Ready to publish*, *Published*", DOC)
def test_states_are_in_order_and_depend_on_new_segments(story: Story) -> None:
    assert story.started["comparison"]["new_segments"]
    assert not story.started_again["comparison"]["new_segments"]
    for view, status in (
        (story.reviewed, "Ready for review"),
        (story.approved, "Ready to publish"),
        (story.published, "Published"),
        (story.ready, "Ready to publish"),
    ):
        assert (view.campaign["status"], view.runs[0]["status"]) == (status, status)


@states("a failed job: *Failed* with `error`", OURS)
@states("a failed job: the campaign back in its previous run", OURS)
def test_failed_job_has_its_error_and_restores_the_campaign(failure: Failure) -> None:
    run = failure.last.runs[0]
    assert (run["run_number"], run["status"]) == (failure.started["run"]["run_number"], "Failed")
    assert run["error"]
    assert not failure.started["run"]["error"]
    assert failure.last.campaign == failure.first.campaign
    assert failure.last.messages == failure.first.messages
    assert failure.last.runs[1:] == failure.first.runs
    assert failure.page_after == failure.page


# ---- history ----------------------------------------------------------------------------------


@states("`POST /v1/campaign/rerun/history` `{campaign_id}` -> `{runs: [...]}` newest first", DOC)
@states("A run counts from 1, the original campaign", DOC)
def test_history_has_the_newest_run_first_and_counts_from_1(story: Story) -> None:
    assert [run["run_number"] for run in story.last.runs] == [3, 2, 1]
    started = [utc(run["started_at"]) for run in story.last.runs]
    assert started == sorted(started, reverse=True)
    views = [story.first, story.published, story.last]
    assert [view.campaign["current_run"] for view in views] == [1, 2, 3]


@pytest.mark.usefixtures("controls")
@states("a campaign never rerun answers one synthesised Run #1", DOC)
def test_history_of_a_campaign_never_rerun_has_run_1(account: Account) -> None:
    (run,) = account.runs()
    assert (run["run_number"], run["status"]) == (1, "Published")
    assert run["customer_group_id"] == account.access.customer_group_id
    assert run["customer_group_name"] == "First customers"
    assert run["segment_count"] == len(account.messages())
    assert run["comparison_summary"] is None
    assert (run["phase"], run["job_uid"], run["initiated_by"], run["error"]) == (None,) * 4


@states("a campaign never rerun answers one *synthesised* Run #1: there is no record of it", DOC)
def test_run_1_has_no_record(company: Company, fresh: Account) -> None:
    with company.sandbox.context.store.read() as session:
        assert session.get(Run, (fresh.access.campaign_id, 1)) is None
    fresh.ask("/v1/cg", {"customer_group_id": fresh.access.customer_group_id}, verb="DELETE")
    (run,) = fresh.runs()
    assert run["customer_group_id"] == fresh.access.customer_group_id


@states("a run does not start after its end", OURS)
def test_run_does_not_start_after_its_end(account: Account) -> None:
    for run in account.runs():
        started, completed = run["started_at"], run["completed_at"]
        assert not (started and completed) or utc(started) <= utc(completed)


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


@states("Run: group, job, user and times of a rerun", OURS)
@states("Run: `segment_count`, `comparison_summary: {matched, new, orphaned}`", OURS)
def test_run_has_group_job_user_times_and_summary(story: Story) -> None:
    run = story.last.runs[1]
    assert run["customer_group_name"] == "Second customers"
    assert run["initiated_by"] == story.account.claims["user_id"]
    assert run["job_uid"] == story.started["run"]["job_uid"]
    assert utc(run["started_at"]) <= utc(run["completed_at"])
    assert run["error"] is None
    reviewed = story.reviewed.runs[0]
    matched, new, orphaned = map(len, compared(story.started))
    summary = {"matched": matched, "new": new, "orphaned": orphaned}
    assert reviewed["comparison_summary"] == story.started["run"]["comparison_summary"] == summary
    assert reviewed["segment_count"] == matched + new


# ---- segments ---------------------------------------------------------------------------------


@states(
    "Segment: one distinct combination of the campaign's variables among the group's customers", DOC
)
@states("Matched: in both runs. New. Orphaned.", DOC)
def test_comparison_is_of_distinct_combinations(story: Story) -> None:
    before, after = keys_of(story.first.messages), keys_among(story.groups[2])
    assert len(story.groups[2]) > len(after)
    assert compared(story.started) == (before & after, after - before, before - after)
    assert all(compared(story.started))
    assert keys_of(story.reviewed.messages) == after
    assert compared(story.started_again) == (after, set(), set())


@states("Matched: the approved message is copied", DOC)
@states("New: generated", DOC)
@states("Orphaned: archived", DOC)
def test_message_is_copied_generated_or_archived(story: Story) -> None:
    matched, new, orphaned = compared(story.started)
    before, after = texts(story.first.messages), texts(story.reviewed.messages)
    # The template has changed since: a message written anew would read differently.
    assert {key: after[key] for key in matched} == {key: before[key] for key in matched}
    copied = [one for one in story.reviewed.messages if keys_of([one]) <= matched]
    assert among(copied, "review_status") == among(story.first.messages, "review_status")
    assert all("in words that Run #1 did not have" in after[key] for key in new)
    assert not orphaned & {*after}
    assert orphaned <= keys_of([message for message in story.archived if message["archived"]])


# ---- messages of runs -------------------------------------------------------------------------


@states(
    "`POST /v1/campaign/rerun/messages` `{campaign_id, run_number?}` -> `{messages: [{message_id, "
    "run_number, segment: {...}, message, review_status, approval_stage, archived}]}`",
    DOC,
)
@states("without `run_number` only the current run's active messages", DOC)
def test_message_object_has_its_names_and_types_and_is_active(account: Account) -> None:
    messages = account.messages()
    for message in messages:
        assert has_shape(message, message_id=str, run_number=int, segment=dict, message=str)
        assert has_shape(message, review_status=str | None, approval_stage=str | None)
        assert has_shape(message, archived=bool)
        assert message["segment"]
    assert among(messages, "run_number") == {account.campaign()["current_run"]}
    assert among(messages, "archived") == {False}


@states("with `run_number` that run's archived messages are included", DOC)
@states("without `run_number` only the *current* run's messages, after a rerun", DOC)
def test_messages_of_a_past_run_are_archived_and_need_its_number(story: Story) -> None:
    assert among(story.archived, "run_number") == {1}
    assert among(story.archived, "archived") == {True}
    assert texts(story.archived) == texts(story.first.messages)
    second = story.account.messages(run_number=2)
    assert texts(second) == texts(story.published.messages)
    assert among(story.reviewed.messages, "run_number") == {2}
    assert among(story.last.messages, "run_number") == {3}
    assert among(story.last.messages, "archived") == {False}


# ---- approval ---------------------------------------------------------------------------------


@states("There is **no** endpoint to approve messages", DOC)
def test_document_has_no_endpoint_to_approve(controls: Sandbox) -> None:
    paths = httpx.get(f"{controls.url}/openapi.json").json()["paths"]
    served = {(verb.upper(), path) for path in paths for verb in paths[path]}
    published = {(one.verb, one.path) for one in [*CONTENT_ENDPOINTS, *CAMPAIGN_ENDPOINTS]}
    sign_in = {("POST", "/v1/auth"), ("GET", "/v1/auth")}
    assert {one for one in served if one[1].startswith("/v1/")} == published | sign_in


@states("the sandbox offers its own under `/sandbox/...`", OURS)
def test_sandbox_approves_messages(story: Story) -> None:
    first = among(story.first.messages, "review_status")
    assert among(story.reviewed.messages, "review_status") > first
    assert among(story.approved.messages, "review_status") == first
