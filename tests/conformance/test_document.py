"""The list of statements is whole, and CONFORMANCE.md is what it says."""

from pathlib import Path

import pytest

from tests.conformance import FILE, SECTIONS, all_tested, document, needs_the_sandbox


def test_committed_document_is_up_to_date() -> None:
    assert FILE.read_text() == document(), "run python -m tests.conformance"


def test_statement_is_once_and_in_a_section() -> None:
    statements = [one.statement for one in all_tested()]
    assert len(statements) == len({*statements})
    assert {one.section for one in statements} == {*SECTIONS}


def test_document_names_each_test_with_sandbox_controls(request: pytest.FixtureRequest) -> None:
    here = Path(__file__).parent
    for item in request.session.items:
        if item.path.parent == here and isinstance(item, pytest.Function):
            uses_controls = "controls" in item.fixturenames
            assert needs_the_sandbox(item.function, item.own_markers) == uses_controls, item.name
