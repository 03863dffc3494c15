"""A source of a package of one's own, installed beside ours."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from blocks import CrmSource, FileCrm, HubSpotCrm, SqlCrm
from blocks.saved import BlockTypeMissing, load_by_name, slug_reference
from tests.conftest import Company, Save, customers
from tests.flows.test_start import LATER
from tests.support.http_server import FakeService, Reply, Request, serving

# A plugin of Apprise imports it, for as long as Python has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/json-lines-crm"
SLUG = "json-lines-crm/main"
TOKEN = "token-of-the-list"

Run = Callable[..., "subprocess.CompletedProcess[str]"]

LOAD = """
import json, sys
from prefect.blocks.core import Block
print(json.dumps(["blocks" in sys.modules, type(Block.load(sys.argv[1])).__name__]))
"""
START = """
import json, sys, prefect
before = set(sys.modules)
import flows.refresh
print(json.dumps([*{name.partition(".")[0] for name in sys.modules.keys() - before}]))
"""
TABS = """
import json, sys
{first}
from prefect.utilities.callables import parameter_schema
from flows.refresh import campaign_refresh
schema = parameter_schema(campaign_refresh.fn).model_dump()
names = [each["$ref"].rpartition("/")[2] for each in schema["properties"]["crm"]["anyOf"]]
print(json.dumps([schema["definitions"][name]["block_type_slug"] for name in names]))
"""
REFRESH = """
import json, sys
from flows.refresh import campaign_refresh
result = campaign_refresh(**json.loads(sys.argv[1]))
print(result.model_dump_json())
"""
TAKEN = """
import json, sys
from deployments import settings
from prefect.blocks.core import Block
known = [Block.get_block_class_from_key(slug).__module__ for slug in json.loads(sys.argv[1])]
print(json.dumps([known, [*settings.BLOCKS]]))
"""
OURS = ["sql-crm", "file-crm", "hubspot-crm", "salesforce-crm"]

GOOD = """
from blocks import CrmSource
class {name}(CrmSource):
    _block_type_name = "{type}"
    def batches(self, needed):
        yield from ()
"""
MODULES = {
    "raises": "raise ValueError('of-a-customer')",
    "exits": "raise SystemExit(3)",
    "no_source": "class Text(str): pass",
    "abstract": "from blocks import CrmSource\nclass Crm(CrmSource): pass",
    "formless": GOOD.format(name="Crm", type="Formless CRM") + "    each: type(lambda: 0)\n",
    "twin": GOOD.format(name="SqlCrm", type="SQL CRM"),
    "late": GOOD.format(name="Crm", type="HubSpot CRM") + "raise ValueError('of-a-customer')",
    "secret": GOOD.format(name="Crm", type="Secret"),
    "nameless": GOOD.format(name="Crm", type="!"),
    "near": GOOD.format(name="Hidden", type="File CRM")
    + GOOD.format(name="Lake", type="Data")
    + GOOD.format(name="Sql", type="SQL"),
}
BROKEN = {
    "missing": ("no_module:Crm", "ModuleNotFoundError: No module named 'no_module'"),
    "mistyped": ("twin:SqlCmr", "AttributeError: module 'twin' has no attribute 'SqlCmr'"),
    "malformed": ("a b:!", "AttributeError: "),
    "raises": ("raises:Crm", "ValueError in raises.py, line 1"),
    "exits": ("exits:Crm", "SystemExit in exits.py, line 1"),
    "text": ("no_source:Text", "it is no class that derives from blocks.CrmSource"),
    "module": ("no_source", "it is no class that derives from blocks.CrmSource"),
    "abstract": ("abstract:Crm", "it does not define batches"),
    "formless": ("formless:Crm", "PydanticSchemaGenerationError in "),
    "twin": ("twin:SqlCrm", "another block has its type's name, sql-crm"),
    "late": ("late:Crm", "ValueError in late.py, line 7"),
    "secret": ("secret:Crm", "another block has its type's name, secret"),
    "nameless": ("nameless:Crm", "its _block_type_name has neither a letter nor a digit"),
}
"""Entry points, and what is told of each."""


class Listed(FakeService):
    """An API with the list's customers, a JSON object a line."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__()
        self.body = "".join(f"{json.dumps(row)}\n" for row in rows).encode()

    def answer(self, request: Request) -> Reply:
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return Reply(401)
        assert request.call == "GET /customers"
        return Reply(body=self.body)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our metadata and the example, installed as pip does it, without a network."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, folder / "source/example")
    ours = folder / "source/ours"
    (ours / "nudgescribe").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "nudgescribe/__init__.py"):
        shutil.copy(ROOT / name, ours / name)
    metadata = "from setuptools import build_meta as b; b.prepare_metadata_for_build_wheel('../..')"
    pip = ["pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    offline = ["--no-build-isolation", "--target", str(folder)]
    for command, directory in (
        (["-c", metadata], ours),
        (["-m", *pip, *offline, str(source)], source),
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=directory, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def run(prefect_server: None, site: Path) -> Run:
    """Runs a program in a process that has them installed."""

    def run(*arguments: str, before: tuple[Path, ...] = (), **variables: str) -> Any:
        path = [*map(str, before), str(site), str(ROOT)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_HOME": str(PREFECT_HOME.value()),
            **variables,
        }
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def printed(done: "subprocess.CompletedProcess[str]") -> Any:
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A package with entry points of which none can be used, but for one."""
    info = tmp_path / "broken/acme_sources-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sources\nVersion: 1.0\n")
    points = {name: value for name, (value, _) in BROKEN.items()}
    lines = [f"{name} = {value}" for name, value in {**points, "near": "near:Sql"}.items()]
    (info / "entry_points.txt").write_text("\n".join(["[nudgeflow.sources]", *lines, ""]))
    for name, code in MODULES.items():
        (info.parent / f"{name}.py").write_text(code)
    return info.parent


@pytest.fixture
def listed() -> Iterator[Listed]:
    with serving(Listed(customers(90, invalid_every=30).to_dicts())) as service:
        yield service


def test_source_of_a_package_is_set_up_loaded_and_refreshed_from(
    run: Run, server: None, listed: Listed, reviewed_company: Company, save: Save
) -> None:
    columns = customers(1).columns
    variables = {
        "NUDGEFLOW_CAMPAIGN_ID": reviewed_company.seeded.campaign_id,
        "NUDGEFLOW_JSON_LINES_CRM_BASE_URL": listed.url,
        "NUDGEFLOW_JSON_LINES_CRM_TOKEN": TOKEN,
        "NUDGEFLOW_JSON_LINES_CRM_COLUMNS": json.dumps(columns),
    }
    outcomes = run("-m", "deployments.command", "bootstrap", **variables).stdout
    assert "block type json-lines-crm: created" in outcomes
    assert f"block {SLUG}: created" in outcomes
    assert (
        f"block {SLUG}: unchanged"
        in run("-m", "deployments.command", "bootstrap", **variables).stdout
    )

    assert printed(run("-c", LOAD, SLUG)) == [False, "JsonLinesCrm"]

    saved = save(reviewed_company, customers(1))
    parameters = {
        **saved.references,
        "crm": slug_reference(SLUG),
        "campaign_id": reviewed_company.seeded.campaign_id,
        "options": {"guardrails": {"max_shrink": 1}},
    }
    done = run("-c", REFRESH, json.dumps(parameters))
    result = printed(done)
    assert (result["extracted"], result["rejected"]) == (90, 3)
    assert result["rows"] == len(saved.lake.read(reviewed_company.seeded.campaign_id)) == 87
    assert TOKEN not in done.stdout + done.stderr

    # Where the package is not installed, people are told so.
    with pytest.raises(BlockTypeMissing, match="No block class found for slug 'json-lines-crm'"):
        load_by_name(SLUG, CrmSource)


@pytest.mark.parametrize("first", ["", "import json_lines_crm", "import blocks.sources"])
def test_form_has_a_tab_for_the_source_whatever_is_imported_first(run: Run, first: str) -> None:
    assert printed(run("-c", TABS.format(first=first))) == [*OURS, "json-lines-crm"]


def test_flow_starts_without_libraries_that_only_the_source_needs(run: Run) -> None:
    modules = {*printed(run("-c", START))}
    assert "json_lines_crm" in modules
    assert not modules & LATER


def test_sources_that_cannot_be_used_are_named_and_stop_no_other(run: Run, broken: Path) -> None:
    tabs = run("-c", TABS.format(first=""), before=(broken,))
    assert printed(tabs) == [*OURS, "sql", "json-lines-crm"]
    for name, (value, why) in BROKEN.items():
        told = f"{name} ({value}) of the package acme-sources cannot be used: {why}"
        assert told in tabs.stderr + tabs.stdout
    assert "of-a-customer" not in tabs.stderr + tabs.stdout
    # Ours is still ours, and no source takes the variables of another block.
    known = {
        kind.get_block_type_slug(): kind.__module__
        for kind in (SqlCrm, FileCrm, HubSpotCrm, Secret)
    }
    modules, settings = printed(run("-c", TAKEN, json.dumps([*known]), before=(broken,)))
    assert modules == [*known.values()]
    assert "json_lines_crm" in settings
    assert "sql" not in settings
