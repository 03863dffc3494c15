"""The command that makes the limits."""

import sys

import pytest
from prefect.client.orchestration import get_client

from deployments import limits


def test_it_makes_the_limits_and_sets_them_anew(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for calls in (3, 4):
        given = ["limits", "--calls", str(calls), "--downloads", "5"]
        monkeypatch.setattr(sys, "argv", given)
        limits.main()
        assert capsys.readouterr().out == f"{limits.CALLS}: {calls}\n{limits.DOWNLOADS}: 5\n"
        with get_client(sync_client=True) as client:
            there = {one.name: one.limit for one in client.read_global_concurrency_limits(100)}
        assert there[limits.CALLS] == calls
        assert there[limits.DOWNLOADS] == 5


def test_none_at_all_is_no_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["limits", "--calls", "0"])
    with pytest.raises(SystemExit):
        limits.main()
    assert "invalid" in capsys.readouterr().err
