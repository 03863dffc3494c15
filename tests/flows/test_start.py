"""What a process imports before it works: its time comes with each flow run."""

import json
import subprocess
import sys

# Not inventory, whose tables are described in polars.
FLOWS = [
    "abandon", "customers", "erase", "export", "plan", "portfolio", "publish", "refresh",
    "retention", "review",
]  # fmt: skip
LATER = {
    "aiohttp", "apprise", "cryptography", "deltalake", "distributed", "iso4217", "matplotlib",
    "numpy", "pandas", "polars", "prefect_dask", "prefect_ray", "psycopg", "pyarrow", "s3fs",
    "sqlalchemy", "tenacity", "urllib3",
}  # fmt: skip
"""Libraries that are imported where they are used."""
PROGRAM = """
import json, os, sys, prefect
before = set(sys.modules)
for flow in sys.argv[1:]:
    if os.fork() == 0:
        __import__(f"flows.{flow}")
        imported = {name.partition(".")[0] for name in sys.modules.keys() - before}
        print(json.dumps([flow, [*imported]]))
        break
    os.wait()
"""
"""Imports Prefect once, and each flow in a fork."""


def test_flows_are_imported_without_libraries_that_only_their_work_needs() -> None:
    command = [sys.executable, "-c", PROGRAM, *FLOWS]
    lines = subprocess.check_output(command, text=True).splitlines()
    imported: dict[str, list[str]] = dict(map(json.loads, lines))
    ours = {"flows", "tasks", "blocks"}
    assert {flow: (ours | LATER) & {*names} for flow, names in imported.items()} == dict.fromkeys(
        FLOWS, ours
    )
