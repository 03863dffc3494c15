"""The list of statements is whole, and CONFORMANCE.md is what it says."""

from pathlib import Path

import pytest

from tests.conformance.statements import FILE, SECTIONS, all_tested, document


def test_committed_document_is_up_to_date() -> None:
    assert FILE.read_text() == document(), "run python -m tests.conformance"


def test_statement_is_once_and_in_its_section() -> None:
    found = list(all_tested())
    statements = [one.statement for one in found]
    assert len(statements) == len({*statements})
    for one in found:
        assert one.test.startswith(f"{SECTIONS[one.statement.section]}.py::")


def test_user_of_sandbox_controls_has_the_marker(request: pytest.FixtureRequest) -> None:
    here = Path(__file__).parent
    own = [item for item in request.session.items if item.path.parent == here]
    silent = [
        item.nodeid
        for item in own
        if {"controls", "slow_sandbox"} & {*getattr(item, "fixturenames", [])}
        and not item.get_closest_marker("sandbox")
    ]
    assert not silent
