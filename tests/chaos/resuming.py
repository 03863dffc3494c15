"""A refresh struck at a point, and gone on with."""

from tests.chaos.points import Point, Resume
from tests.chaos.proof import nothing_half
from tests.chaos.rig import KILLED, Outcome, Service, Story


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
    second = story.run(point.group, retry=retry, machine="one" if resume == "retry" else "another")
    assert second.code == 0, "It could not be resumed."
    return resume, second
