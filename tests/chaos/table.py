"""The table of points at the end: a plugin, since the first process of xdist loads no conftest."""

import os
from collections import Counter

import pytest

COLUMNS = ("point", "resumed by", "found on resume", "outcome", "seconds")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for some in terminalreporter.stats.values() for each in some]
    rows = {
        tuple(map(str, value))
        for report in reports
        if isinstance(report, pytest.TestReport)
        for name, value in report.user_properties
        if name == "chaos"
    }
    if not rows:
        return
    table = [COLUMNS, *sorted(rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminalreporter.section("points of chaos")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells))
    tally = Counter(f"{found or 'nothing'}: {outcome}" for _, _, found, outcome, _ in rows)
    half = os.environ.get("CHAOS_HALF")
    taken = f"{len(rows)} points" + (f", half {half} of all" if half else "")
    terminalreporter.write_line(f"{taken}; {dict(sorted(tally.items()))}")
