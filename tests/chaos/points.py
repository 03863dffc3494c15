"""The moments at which something is killed, drawn up from what an undisturbed refresh does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from nudgescribe import contract
from tests.chaos.effects import Moment
from tests.chaos.rig import Outcome

Struck = Literal["flow", "sandbox"]
Group = Literal["new", "reuse"]
Watched = dict[Group, list[str]]
Resume = Literal["retry", "next run", "next run, unnoticed"]
MOMENTS: tuple[Moment, ...] = ("before", "during", "after")
RESUMES: tuple[Resume, ...] = get_args(Resume)
"""Unnoticed is a flow run that is Running for good since nobody has reported its end."""

READS = {
    "GET link",
    *(
        f"POST {path}"
        for path in (
            contract.CAMPAIGNS,
            contract.GROUPS,
            contract.FIELDS,
            contract.CUSTOMERS,
            contract.CUSTOMERS_PAGES,
            contract.MESSAGES_PAGES,
            contract.MESSAGES_FETCH,
            contract.RERUN_HISTORY,
            contract.RERUN_MESSAGES,
        )
    ),
}
NO_EFFECT = re.compile(
    rf"GET /|POST {contract.AUTH}|POST /api/(flows|variables)/|\w+ /api/flow_runs/\*?$"
)
"""Nothing to lose: looks, a token, the server's id, and a flow run that has not begun."""


@dataclass(frozen=True)
class Effect:
    """What a step does, as the `number`-th of its kind."""

    step: str
    what: str
    number: int

    @classmethod
    def of(cls, name: str) -> "Effect":
        step, _, rest = name.partition(": ")
        what, _, number = rest.rpartition(" #")
        return cls(step, what, int(number))

    def __str__(self) -> str:
        return f"{self.step}: {self.what} #{self.number}"

    @property
    def kind(self) -> tuple[str, str]:
        """Alike for who is killed at them are a step's looks, and whatever shows something to
        people, which nothing goes by.
        """
        if "/artifacts/" in self.what:
            return "", "show"
        return self.step, "look" if self.what in READS else self.what

    @property
    def changes(self) -> bool:
        return self.kind[1] not in ("look", "show")

    @property
    def at_service(self) -> bool:
        return " /v1/" in self.what

    @property
    def at_prefect(self) -> bool:
        return " /api/" in self.what


@dataclass(frozen=True)
class Point:
    """`struck` is killed at a `moment` of an effect, and what is left resumed; the refresh fills a
    new `group` or reuses one.
    """

    group: Group
    struck: Struck
    effect: Effect
    moment: Moment
    resume: Resume

    def __str__(self) -> str:
        reused = " of a group reused" if self.group == "reuse" else ""
        return f"{self.struck} killed {self.moment} {self.effect}{reused}"

    @property
    def happened(self) -> bool:
        """Whether the effect is there though nobody has noted so."""
        half_way = self.moment == "during" and not self.effect.what.startswith("write")
        return self.moment == "after" or half_way


def points_of(watched: Watched, seed: int) -> list[Point]:
    """Of everything that changes something, before, during and after; of what only looks, one
    moment a step; of what is shown, one. A flow killed after a change is not killed before the next
    one, too. In an order, and with resumes, of the seed.
    """
    random = Random(seed)
    known: set[tuple[str, str]] = set()
    points: list[Point] = []
    for group, seen in watched.items():
        before = frozenset(known)
        struck_after = False  # the last change
        for effect in map(Effect.of, seen):
            repeats = effect.kind in (before if effect.changes else known)
            taken = not (repeats or NO_EFFECT.match(effect.what))
            if taken:
                known.add(effect.kind)
                points += [
                    Point(group, struck, effect, moment, random.choice(RESUMES))
                    for struck, moment in _blows(effect)
                    if not (struck_after and (struck, moment) == ("flow", "before"))
                ]
            if effect.changes:
                struck_after = taken
    random.shuffle(points)
    return points


def _blows(effect: Effect) -> Iterator[tuple[Struck, Moment]]:
    if not effect.changes:
        yield "flow", "during" if effect.at_service else "after"
        return
    for moment in MOMENTS:
        if not (effect.at_prefect and moment == "during"):
            yield "flow", moment
        if effect.at_service:
            yield "sandbox", moment


def found(point: Point, first: Outcome, second: Outcome | None) -> str:
    """What became of the effect when the refresh went on."""
    effect = point.effect
    kind = f"{effect.step}: {effect.what} #"
    later = first.seen[first.seen.index(str(effect)) + 1 :] if second is None else second.seen
    again = any(name.startswith(kind) for name in later)
    if again:
        return "repeated harmlessly" if point.happened else "begun anew"
    if second is None:
        return "known" if point.moment == "after" else "adopted"
    steps = {Effect.of(name).step for name in later}
    return "cached" if effect.step not in steps | {"pages", "flow"} else "adopted"
