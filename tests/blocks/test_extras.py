"""Extras: nothing imports them before they are needed, and a missing one is named."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Literal

import pytest
from prefect import flow
from prefect.blocks.core import Block

from blocks import DataLake
from blocks.extras import MODULES, Extra, ExtraMissing, is_installed
from flows.export import export_messages
from flows.options import ExportOptions, FetchOptions, RefreshOptions
from flows.publish import publish_campaign
from flows.refresh import campaign_refresh
from sandbox.extra import MISSING
from tests.conftest import Company, Save, customers

ROOT = Path(__file__).parents[2]
IMPORTED = """
import sys
from importlib import import_module
from pathlib import Path
for path in Path("flows").glob("*.py"):
    import_module(f"flows.{path.stem}")
print(*[name for name in sys.argv[1:] if name in sys.modules])
"""


def extras() -> dict[str, list[str]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_extras_are_those_of_the_package() -> None:
    assert extras().keys() - MODULES.keys() == {
        *("kubernetes", "redis"),  # for Prefect's own worker and server
        *("sandbox", "benchmarks", "development"),
    }
    for extra in extras().keys() - {"development"}:
        assert extra in extras()["development"][0]


@pytest.mark.parametrize("extra", MODULES)
def test_extra_can_be_imported(extra: Extra) -> None:
    assert is_installed(extra)


def test_flows_import_no_extra() -> None:
    command = [sys.executable, "-c", IMPORTED, *MODULES.values()]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == []


def test_sandbox_without_its_extra_says_how_to_install_it() -> None:
    without = "import runpy, sys; sys.modules['jwt'] = None; runpy.run_module(sys.argv.pop(1), {}, "
    without += "'__main__')"
    for command in (
        ("sandbox", "serve"),
        ("deployments.command", "demo"),
        ("deployments.command", "up"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", without, *command], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr == f"{MISSING}\n"
    assert MISSING.endswith('pip install "nudgeflow[sandbox]".')


def test_lake_with_format_delta_is_refused_without_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    assert DataLake(root="/lake").format == "parquet"
    with pytest.raises(ExtraMissing) as refused:
        DataLake(root="/lake", format="delta")
    assert str(refused.value) == (
        'A lake with format delta needs the extra delta: pip install "nudgeflow[delta]". '
        "Install it on every machine that flow runs work on, then retry."
    )


def test_saved_lake_with_format_delta_is_refused_before_its_flow_begins(
    company: Company, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = save(company, customers(1)).blocks["lake"].model_copy(update={"format": "delta"})
    lake.save("delta", overwrite=True)

    @flow
    def taking(lake: DataLake) -> None: ...

    parameters = {"lake": lake.to_reference()}
    taking.validate_parameters(parameters)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ExtraMissing, match=r"nudgeflow\[delta\]"):
        taking.validate_parameters(parameters)
    with pytest.raises(ExtraMissing, match=r"nudgeflow\[delta\]"):
        Block.load("data-lake/delta")


@pytest.mark.parametrize("task_runner", ["dask", "ray"])
def test_task_runner_is_refused_without_its_extra_before_anything_is_changed(
    company: Company,
    save: Save,
    monkeypatch: pytest.MonkeyPatch,
    task_runner: Literal["dask", "ray"],
) -> None:
    saved, campaign_id = save(company, customers(100)), company.seeded.campaign_id
    monkeypatch.setitem(sys.modules, MODULES[task_runner], None)
    chosen, missing = {"task_runner": task_runner}, rf"nudgeflow\[{task_runner}\]"
    refresh, export = RefreshOptions.model_validate(chosen), ExportOptions.model_validate(chosen)
    with pytest.raises(ExtraMissing, match=missing):
        campaign_refresh(campaign_id, **saved.blocks, options=refresh)
    account, lake = saved.blocks["account"], saved.blocks["lake"]
    with pytest.raises(ExtraMissing, match=missing):
        publish_campaign(campaign_id, account, lake, FetchOptions.model_validate(chosen))
    with pytest.raises(ExtraMissing, match=missing):
        export_messages(campaign_id, account, lake, options=export)
    assert (len(company.history()), len(company.groups())) == (1, 1)
    assert not (saved.root / "refreshes").exists()
