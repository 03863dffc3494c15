"""A refresh killed at every step, before, during and after what it does there, and resumed."""

import os
from collections.abc import Callable
from time import monotonic

import pytest

from tests.chaos.points import Point, Resume, Watched, found, points_of
from tests.chaos.proof import done_once, nothing_half
from tests.chaos.rig import KILLED, Outcome, Service, Story

SEED = int(os.environ.get("CHAOS_SEED", "7"))
HALF = os.environ.get("CHAOS_HALF")
SHARES = 32
"""The points are known only when a refresh has been watched: each test takes every 32nd."""
TAKEN = range(int(HALF), SHARES, 2) if HALF else range(SHARES)


def struck(story: Story, point: Point, service: Service) -> Outcome:
    """The try in which it is struck. Only who is struck in the service's place may survive."""
    pid = service.pid if point.struck == "sandbox" else None
    first = story.run(point.group, effect=str(point.effect), moment=point.moment, struck=pid)
    nothing_half(story)
    assert first.struck, "It never came to this."
    assert pid or first.code == KILLED
    return first


def resumed(story: Story, point: Point, first: Outcome) -> tuple[Resume, Outcome]:
    """How it could be resumed, and the try that went on; the CRM has moved on meanwhile."""
    (run,) = story.flow_runs()
    resume = point.resume
    if resume.startswith("next") and not story.is_open:
        # It has not begun, or it has ended: a next run is a refresh of its own.
        resume = "retry"
    fixed = story.is_kept if resume.startswith("next") else story.has_list
    if fixed:
        story.crm_moves_on()
    if first.code == KILLED and resume != "next run, unnoticed":
        story.crash(run)
    retry = str(run.id) if resume.startswith("retry") else None
    second = story.run(point.group, retry=retry)
    assert second.code == 0, "It could not be resumed."
    return resume, second


@pytest.mark.chaos
@pytest.mark.parametrize("share", TAKEN)
def test_refresh_happens_once_whatever_is_killed(
    share: int,
    watched: Watched,
    service: Service,
    story_of: Callable[[str], Story],
    subtests: pytest.Subtests,
    record_property: Callable[[str, object], None],
) -> None:
    for number, point in enumerate(points_of(watched, SEED)[share::SHARES]):
        began = monotonic()
        how, what, outcome = "", "", "FAILED"
        with subtests.test(f"{point}, {point.resume}"):
            story = story_of(str(number))
            first = struck(story, point, service)
            second = None
            if first.code:
                how, second = resumed(story, point, first)
            what = found(point, first, second)
            done_once(story)
            outcome = "once"
        seconds = round(monotonic() - began, 1)
        record_property("chaos", [str(point), how, what, outcome, seconds])


@pytest.mark.chaos
def test_retry_of_a_refresh_that_the_next_run_finished_changes_nothing(
    story_of: Callable[[str], Story],
) -> None:
    story = story_of("story")
    point = "initiate_rerun: POST /v1/campaign/rerun/initiate #1"
    assert story.run("new", effect=point, moment="after").code == KILLED
    (run,) = story.flow_runs()
    story.crm_moves_on()
    assert story.run("new").code == 0
    done_once(story)
    story.crash(run)
    story.run("new", retry=str(run.id))
    done_once(story)
