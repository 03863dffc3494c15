"""The PostgreSQL that `make up` starts for Prefect, if it can; the browser's test works on one."""

from pathlib import Path

import pytest

from deployments import postgresql


@pytest.mark.parametrize("installed", [False, True])
def test_without_a_postgresql_that_starts_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(postgresql, "find_programs", lambda: tmp_path if installed else None)
    with postgresql.postgresql(tmp_path / "data") as url:
        assert url is None
