"""Classes that other packages add, by their entry points."""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import walk_tb
from typing import TypeVar

from prefect.logging import get_logger

from nudgescribe.errors import cut

T = TypeVar("T")

LONGEST_REASON = 200

_problems: list[str] = []


class Unusable(Exception):
    """What a package adds cannot be used; the text says why."""


def problems() -> str:
    """Return what packages add that this process could not use, "" if it could use all."""
    return " ".join(_problems)


def load_added(group: str, check: Callable[[object], T]) -> Iterator[T]:
    """Yield what the entry points of a group name, once `check` has accepted it.

    What cannot be imported, or is refused by an error of `check`, is logged with its package and
    left out: it must not stop the others.
    """
    for each in sorted(entry_points(group=group), key=lambda each: (_package(each), each.name)):
        try:
            added = check(each.load())
        except (Exception, SystemExit) as error:
            problem = (
                f"{each.name} ({each.value}) of the package {_package(each)} cannot be used: "
                f"{cut(_describe(error), LONGEST_REASON)}."
            )
            _problems.append(problem)
            get_logger(group).warning("%s", problem)
        else:
            yield added


def _package(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist else "unknown"


def _describe(error: BaseException) -> str:
    """Return why; only errors of the import itself are quoted, for others may quote anything."""
    kind, text = type(error).__name__, " ".join(str(error).split()).rstrip(".")
    if isinstance(error, Unusable):
        return text
    if isinstance(error, ImportError | AttributeError):
        return f"{kind}: {text}"
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{kind} in {Path(frame.f_code.co_filename).name}, line {line}"
