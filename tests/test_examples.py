"""The examples, on a lake that a campaign of a sandbox was refreshed into."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import nbformat
import psycopg
import pytest
from nbclient import NotebookClient
from pydantic import SecretStr

from blocks import SqlTable
from docs import build as site
from flows.export import export_messages
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from sandbox import seed
from tests.conftest import SEEDED_CUSTOMERS, Company, Sandbox, Saved, customers, saved

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "lake.ipynb"


@pytest.fixture(scope="module")
def refreshed(
    prefect_server: None,
    reviewed_sandbox: Sandbox,
    postgresql_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Saved:
    """Runs 1 and 2 of a campaign, the second copied to a table; 5 of its 250 rows are rejected."""
    company = Company(reviewed_sandbox, seed.seed(reviewed_sandbox.context, SEEDED_CUSTOMERS))
    one = saved(company, customers(250, invalid_every=50), tmp_path_factory.mktemp("examples"))
    campaign = company.seeded.campaign_id
    export_messages(campaign, one.account, one.lake)
    table = SqlTable(url=SecretStr(postgresql_server))
    table.save(f"{one.name}-examples")
    campaign_refresh(campaign, **one.blocks, options=RefreshOptions(copy_to=table))
    return one


def test_notebook_holds_no_output_and_shows_what_the_lake_has(
    refreshed: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    links = [link for cell in notebook.cells for link in site.links(cell.source)]
    assert links
    assert all((EXAMPLES / link).is_file() for link in links)
    monkeypatch.setenv("LAKE", str(refreshed.root))
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        "".join(output.get("text", "") or output["data"]["text/plain"] for output in cell.outputs)
        for cell in cells
    ]
    assert "RunDiff(" in "".join(shown)
    (campaign, _), _ = _runs(refreshed)
    assert shown[1].count(campaign) == 2
    (refresh,) = [line.split() for line in shown[-1].splitlines() if "campaign-refresh" in line]
    assert refresh[2:5] == ["completed", "1", "5.0"]


@pytest.fixture
def bi(refreshed: Saved, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The database of views that the command of the document makes."""
    page = (EXAMPLES / "README.md").read_text()
    (command,) = [each for each in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "sed" in each]
    command = command.replace("/tmp/lake", str(refreshed.root)).replace("examples/", f"{EXAMPLES}/")
    command = command.replace(".venv/bin/python", sys.executable)
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    with duckdb.connect(str(tmp_path / "lake.duckdb"), read_only=True) as connection:
        yield connection


def test_views_on_the_lake_have_what_the_lake_has(
    refreshed: Saved, bi: duckdb.DuckDBPyConnection
) -> None:
    lake, folder = refreshed.lake, refreshed.root / "messages"
    runs = {number: len(lake.read(campaign, number)) for campaign, number in _runs(refreshed)}
    assert dict(bi.execute("SELECT run_number, messages FROM runs").fetchall()) == runs
    left_over = next(folder.rglob("part-*.parquet"))
    left_over.with_name("part-left-over.parquet").write_bytes(left_over.read_bytes())
    counted = "SELECT run_number, count(*) FROM {} GROUP BY ALL"
    for view in ("messages", "customers"):
        assert dict(bi.execute(counted.format(view)).fetchall()) == runs, view
    assert bi.execute("SELECT sum(customers) FROM segment_sizes").fetchall() == [
        (sum(runs.values()),)
    ]
    outcomes = bi.execute(
        "SELECT flow, outcome, rejected FROM refreshes ORDER BY planned_at"
    ).fetchall()
    assert outcomes == [
        ("export-messages", "completed", None),
        ("campaign-refresh", "completed", 5),
    ]
    (rejected,) = bi.execute("SELECT count(*) FROM changes WHERE change = 'rejected'").fetchall()
    assert rejected == (5,)


def test_views_on_the_table_have_what_was_copied(refreshed: Saved, postgresql_server: str) -> None:
    url = postgresql_server.replace("postgresql+psycopg", "postgresql")
    (campaign, newest) = max(_runs(refreshed))
    rows = len(refreshed.lake.read(campaign, newest))
    with psycopg.connect(url) as connection:
        connection.execute((EXAMPLES / "bi/postgresql.sql").read_bytes())
        runs = connection.execute("SELECT run_number, customers FROM message_runs").fetchall()
        assert runs == [(newest, rows)]
        for view in ("customers_reached", "messages_changed"):
            found = connection.execute(f"SELECT count(*) FROM {view}".encode()).fetchall()
            assert found == [(rows,)], view
        columns = connection.execute("SELECT * FROM customers_reached LIMIT 0").description
        assert columns
        assert "message" not in [column.name for column in columns]


def _runs(refreshed: Saved) -> list[tuple[str, int]]:
    frame = refreshed.lake.runs()
    return [*zip(frame["campaign_id"], map(int, frame["run_number"]), strict=True)]
