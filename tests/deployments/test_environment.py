"""The local stack stays on this machine."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = """
from pathlib import Path
from deployments.environment import keep_prefect_at
keep_prefect_at(Path("home"), 4321)
from prefect.settings import get_current_settings
print(get_current_settings().api.url)
"""


def test_server_of_a_project_is_none_of_the_demos(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PREFECT_API_URL=http://prefect.example/api\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://other.example"}
    command = [sys.executable, "-c", SERVER]
    printed = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert printed.stdout == "http://127.0.0.1:4321/api\n"
