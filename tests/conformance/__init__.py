"""The contract document, statement by statement, against a service on the other end of HTTP.

A test carries the statements that it holds the service to, each with its mark and its section.
"""

import importlib
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple, TypeVar

import pytest

DOC, OURS = "[doc]", "[ours]"
"""Published by Nudgescribe; not published, so this project fixes it."""

SECTIONS = [
    "Everywhere",
    "Authentication",
    "Workspace fields",
    "Customer groups",
    "Customers",
    "Campaigns and messages",
    "Reruns",
    "Found in a second reading",
]
MODULES = [
    "test_everywhere",
    "test_workspaces",
    "test_customers",
    "test_messages",
    "test_reruns",
    "test_second_reading",
]
NEED_THE_SANDBOX = {"controls", "stranger", "company", "fresh", "story", "watched", "failure"}
"""Fixtures that no real service can give."""

FILE = Path(__file__).parents[2] / "CONFORMANCE.md"

HEAD = """\
# Conformance

Every statement of the API's contract and the test that holds a service to it; **[doc]** is
published by Nudgescribe, **[ours]** is this project's reading. `python -m tests.conformance`
writes this file.

`pytest tests/conformance` tests the sandbox. To test a real account, set `NUDGESCRIBE_BASE_URL`
and `NUDGESCRIBE_EMAIL`, `_PASSWORD`, `_API_KEY`, `_API_CODE`, `_PROFILE_KEY`, `_WORKSPACE_ID`,
`_CAMPAIGN_ID` (of a *Published* campaign) and `_CUSTOMER_GROUP_ID` (its group) in the environment.
The tests then make groups and fields of their own, which they delete again, and have the campaign
exported again; what needs the sandbox's own controls (*sandbox only* below) is skipped.
"""

T = TypeVar("T", bound=Callable[..., object])


class Statement(NamedTuple):
    section: str
    text: str
    mark: str


class Tested(NamedTuple):
    """A statement, and a test that carries it."""

    statement: Statement
    test: str
    sandbox_only: bool


def statements_of(section: str) -> Callable[[str, str], Callable[[T], T]]:
    """Return the decorator that links a test to a statement of the section, and its mark."""

    def states(text: str, mark: str) -> Callable[[T], T]:
        return pytest.mark.states(Statement(section, text, mark))

    return states


def all_tested() -> Iterator[Tested]:
    """Yield the statements of all modules, in order."""
    for name in MODULES:
        yield from tested_by(importlib.import_module(f"{__package__}.{name}"))


def tested_by(module: ModuleType) -> Iterator[Tested]:
    """Yield a module's statements. Raises ValueError for a test without one."""
    file = f"{module.__name__.rpartition('.')[2]}.py"
    for name, test in vars(module).items():
        if not (name.startswith("test_") and isinstance(test, FunctionType)):
            continue
        marks: list[pytest.Mark] = getattr(test, "pytestmark", [])
        # The decorator next to the function marks it first.
        stated = [mark.args[0] for mark in reversed(marks) if mark.name == "states"]
        if not stated:
            raise ValueError(f"{name} carries no statement")
        for statement in stated:
            yield Tested(statement, f"{file}::{name}", needs_the_sandbox(test, marks))


def needs_the_sandbox(test: FunctionType, marks: list[pytest.Mark]) -> bool:
    used = {name for mark in marks if mark.name == "usefixtures" for name in mark.args}
    return bool(NEED_THE_SANDBOX & (used | {*signature(test).parameters}))


def document() -> str:
    """Return the text of CONFORMANCE.md."""
    found = list(all_tested())
    parts = [HEAD, f"{len(found)} statements.\n"]
    for section in SECTIONS:
        rows = [_row(one) for one in found if one.statement.section == section]
        parts.append(
            "\n".join([f"## {section}\n", "| statement | mark | test |", "|---|---|---|", *rows])
            + "\n"
        )
    return "\n".join(parts)


def _row(one: Tested) -> str:
    text = one.statement.text.replace("|", "\\|")
    where = f"`{one.test}`" + (", sandbox only" if one.sandbox_only else "")
    return f"| {text} | {one.statement.mark} | {where} |"
