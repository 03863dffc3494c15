"""What the retention removes, and what it never touches."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect.logging import disable_run_logger

from blocks.files import DRAFT
from tasks.retention import Cleaned, clean_lake
from tests.conftest import Company, Save, customers
from tests.lakes import write_run

OLD = (datetime.now(UTC) - timedelta(days=8)).timestamp()


def age(root: Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in root.rglob(pattern):
            os.utime(file, (OLD, OLD))


def test_what_nobody_needs_goes(company: Company, save: Save) -> None:
    saved = save(company, customers(1))
    lake, files = saved.lake, saved.lake.files
    write_run(lake, "C", 1, {"01": "a"})
    write_run(lake, "C", 1, {"01": "a", "02": "b"})
    write_run(lake, "C", 2, {"01": "a"})
    files.write("staging/dead/accepted.parquet", b"")
    files.write("messages/campaign_id=C/run_number=3/part-00000-00000-dead.parquet", b"")
    files.draft("messages/campaign_id=C/run_number=3/x").file.write_bytes(b"half")
    age(saved.root, "*")
    files.write("staging/open/accepted.parquet", b"")
    files.write("messages/campaign_id=C/run_number=3/part-00000-00000-open.parquet", b"")
    with disable_run_logger():
        cleaned = clean_lake.fn(saved.name, 7)
        assert clean_lake.fn(saved.name, 7) == Cleaned()
    # Of the run that was written twice, the first manifest and its part; and the dead run's part.
    assert cleaned == Cleaned(staged=1, drafts=1, messages=3, uploads=0)
    assert lake.read("C", 1).shape == (2, 2)
    assert lake.read("C").shape == (1, 2)
    assert files.names("staging") == ["open"]
    assert len(files.names("messages/campaign_id=C/run_number=3")) == 1
    assert not list(saved.root.rglob(f"{DRAFT}*"))
