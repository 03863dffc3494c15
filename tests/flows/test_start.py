"""What a process imports before it works: its time comes with each flow run."""

import subprocess
import sys

import pytest

# Not inventory, whose tables are described in polars.
FLOWS = [
    "abandon", "customers", "export", "plan", "portfolio", "publish", "refresh",
    "retention", "review",
]  # fmt: skip
LATER = {
    "aiohttp", "apprise", "cryptography", "deltalake", "distributed", "iso4217", "matplotlib",
    "numpy", "pandas", "polars", "prefect_dask", "prefect_ray", "psycopg", "pyarrow", "s3fs",
    "sqlalchemy", "tenacity", "urllib3",
}  # fmt: skip
"""Libraries that are imported where they are used."""
PROGRAM = """
import sys, prefect
before = set(sys.modules)
import flows.{flow}
print(*(name.partition(".")[0] for name in sys.modules.keys() - before))
"""


@pytest.mark.parametrize("flow", FLOWS)
def test_flow_is_imported_without_libraries_that_only_its_work_needs(flow: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(flow=flow)]
    imported = subprocess.check_output(command, text=True).split()
    assert {"flows", "tasks", "blocks"} <= {*imported}
    assert LATER & {*imported} == set()
