from datetime import UTC, datetime

import pytest

from flows import preparation
from flows.preparation import released_on_failure
from tasks.campaigns import Refresh


def test_what_went_wrong_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[str] = []

    def fails(lake: str, refresh: Refresh) -> None:
        released.append(lake)
        raise OSError("the lake is away")

    monkeypatch.setattr(preparation, "release_staged", fails)
    refresh = Refresh(id="r", started=datetime(2026, 11, 21, tzinfo=UTC))
    with pytest.raises(ValueError, match="first"), released_on_failure("main", refresh):
        raise ValueError("first")
    assert released == ["main"]
    with released_on_failure("main", refresh):
        pass
    assert released == ["main"]
