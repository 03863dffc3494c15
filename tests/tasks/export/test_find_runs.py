"""Which of a campaign's runs are exported, and what their pages are checked against."""

from pathlib import Path

import pytest

from benchmarks.pages_server import CAMPAIGN, answers
from blocks import DataLake
from nudgescribe import contract
from tasks.export.run import find_runs
from tests.conftest import Company
from tests.support.exports import Export
from tests.support.http_server import serving
from tests.support.lakes import write_run
from tests.tasks.conftest import Local


@pytest.mark.parametrize(("manifest", "pages"), [(None, 2), (b"", 1), (b"{}", 1)])
def test_previous_run_whose_manifest_is_damaged_stops_no_other(
    company: Company, local: Local, manifest: bytes | None, pages: int
) -> None:
    lake: DataLake = local.lake
    write_run(lake, CAMPAIGN, 1, {"1": "a"}, {"2": "b"})
    if manifest is not None:
        folder = Path(lake.root, f"messages/campaign_id={CAMPAIGN}/run_number=1")
        (folder / "_manifest-00000.json").write_bytes(manifest)
    export = Export([])
    export.answers = answers(2, 2)
    (workspace,) = export.answers[contract.CAMPAIGNS]["workspaces"]
    workspace["campaigns"][0]["current_run"] = 2
    (first,) = export.answers[contract.RERUN_HISTORY]["runs"]
    export.answers[contract.RERUN_HISTORY]["runs"] = [first, first | {"run_number": 2}]
    with serving(export):
        account = company.account(base_url=export.url)
        (run,) = find_runs.fn(account, CAMPAIGN, lake, "latest", True)
    assert (run.run_number, run.previous_run, run.previous_pages) == (2, 1, pages)
