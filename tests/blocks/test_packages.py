"""What other packages add is found, or named with what is wrong with it."""

import sys
from pathlib import Path

import pytest

from blocks.packages import Unusable, load_added, problems

GROUP = "nudgeflow.tests"
POINTS = """[nudgeflow.tests]
exits = added_exits:thing
good = added:GOOD
late = added:LATE
mistyped = added:GODO
raises = added_raises:thing
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "added-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "added.py").write_text("GOOD, LATE = 'good', 7\n")
    (tmp_path / "added_exits.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "added_raises.py").write_text("raise ValueError('of-a-customer')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("blocks.packages._problems", [])
    for name in ("added", "added_exits", "added_raises"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def only_text(added: object) -> str:
    if not isinstance(added, str):
        raise Unusable("it is no text")
    return added


@pytest.mark.usefixtures("package")
def test_what_cannot_be_used_is_named_with_its_package_and_stops_no_other() -> None:
    assert list(load_added(GROUP, only_text)) == ["good"]
    told = problems()
    for point, why in (
        ("exits (added_exits:thing)", "SystemExit in added_exits.py, line 1."),
        ("late (added:LATE)", "it is no text."),
        ("mistyped (added:GODO)", "AttributeError: module 'added' has no attribute 'GODO'."),
        ("raises (added_raises:thing)", "ValueError in added_raises.py, line 1."),
    ):
        assert f"{point} of the package added cannot be used: {why}" in told
    assert "of-a-customer" not in told
