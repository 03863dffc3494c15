"""What a test holds the service to: a statement of the contract, its mark and its section."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple, TypeVar

import pytest

DOC, OURS = "[doc]", "[ours]"
"""Published by Nudgescribe; not published, so this project fixes it."""

SECTIONS = {
    "Everywhere": "test_everywhere",
    "Authentication": "test_authentication",
    "Workspace fields": "test_workspace_fields",
    "Customer groups": "test_customer_groups",
    "Customers": "test_customers",
    "Campaigns and messages": "test_messages",
    "Reruns": "test_reruns",
}
"""The sections of the contract and the modules that test them."""

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
    """A statement, and the test that carries it."""

    statement: Statement
    test: str
    sandbox_only: bool


def statements_of(section: str) -> Callable[[str, str], Callable[[T], T]]:
    """Return the decorator that links a test to a statement of the section, and its mark."""

    def states(text: str, mark: str) -> Callable[[T], T]:
        return pytest.mark.states(Statement(section, text, mark))

    return states


def all_tested() -> Iterator[Tested]:
    """Yield every test of the sections' modules, in order."""
    for name in SECTIONS.values():
        yield from tested_by(importlib.import_module(f"{__package__}.{name}"))


def tested_by(module: ModuleType) -> Iterator[Tested]:
    """Yield a module's tests. Raises ValueError for one without exactly one statement."""
    for name, test in vars(module).items():
        if not (name.startswith("test_") and isinstance(test, FunctionType)):
            continue
        marks: list[pytest.Mark] = getattr(test, "pytestmark", [])
        stated = [mark.args[0] for mark in marks if mark.name == "states"]
        if len(stated) != 1:
            raise ValueError(f"{name} carries {len(stated)} statements instead of one")
        file = f"{module.__name__.rpartition('.')[2]}.py"
        sandbox_only = any(mark.name == "sandbox" for mark in marks)
        yield Tested(stated[0], f"{file}::{name}", sandbox_only)


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
