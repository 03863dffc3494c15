"""The process that forks the flow runs of a portfolio."""

import os
import sys
from pathlib import Path

import pytest

from flows.run.forks import Forks


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
