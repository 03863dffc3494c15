"""The process that forks the flow runs of a portfolio."""

import os
import sys
from pathlib import Path
from socket import socketpair
from uuid import UUID, uuid4

import pytest

from flows.run.forks import Forks
from flows.run.zygote import IMPORTED, prepare, work


def test_flow_run_that_an_ending_zygote_was_to_start_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has closed its socket, but is still there."""
    end = tmp_path / "end"
    os.mkfifo(end)
    zygote = tmp_path / "zygote"
    zygote.write_text(f"#!/bin/sh\nexec <&-\nread line <'{end}'\n")
    zygote.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(zygote))
    with Forks() as forks:
        forks.start("first")
        forks.start("second")
        assert forks.wait(0) == {"first", "second"}
        end.open("w").close()


def test_flow_run_goes_on_if_its_portfolio_was_killed_before_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow_run_id, worked_on = uuid4(), list[UUID]()

    def load(flow_run_id: UUID) -> tuple[UUID, None]:
        return flow_run_id, None

    def run(flow: None, flow_run: UUID) -> None:
        worked_on.append(flow_run)

    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "")
    monkeypatch.setattr("prefect.flow_engine.load_flow_and_flow_run", load)
    monkeypatch.setattr("prefect.flow_engine.run_flow", run)
    portfolio, fork = socketpair()
    portfolio.sendall(f"{flow_run_id}\n".encode())
    portfolio.close()
    with fork:
        work(fork)
    assert worked_on == [flow_run_id]


def test_what_flow_runs_need_is_imported_before_the_first_one() -> None:
    prepare()
    assert {*IMPORTED} <= sys.modules.keys()
