"""Chunks of pages worked on by a local Ray, into a lake in a folder."""

import os
from pathlib import Path

import pytest

from blocks import DataLake
from tasks.export import run as tasks
from tests.s3 import campaign
from tests.support.http_server import serving

PAGES, PAGE_ROWS = 8, 1000


@pytest.mark.timeout(150)
def test_ray_fetches_what_threads_fetch(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 2 * PAGE_ROWS)
    with serving(campaign.Published(PAGES, PAGE_ROWS)) as export:
        for runner in ("threads", "ray"):
            lake = DataLake(root=str(tmp_path / runner))
            blocks = campaign.save(runner, export, lake)
            assert campaign.fetch(blocks, task_runner=runner).rows == PAGES * PAGE_ROWS
            assert campaign.is_whole(lake, PAGES * PAGE_ROWS)
            assert (os.getpid() in export.downloaders) == (runner == "threads")
            export.processes.clear()
