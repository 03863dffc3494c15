"""Every command of the documents, run: as it stands there, but for what people fill in."""

import os
import re
import shlex
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from distributed import Client

from blocks import DataLake
from deployments.environment import free_port
from sandbox import demo_customers
from sandbox.seed import Seeded
from tests.support.clock import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[1]
SECONDS = 240.0
ELSEWHERE = {
    **dict.fromkeys(("demo", "up"), "deployments/test_local.py"),
    "site": "test_site.py",
}
"""Targets that tests of their own run; the others are what CI consists of."""
STAND_IN = """#!/bin/sh
printf '%s ' "$(basename "$0")" "$@" >> "$CALLS"
echo >> "$CALLS"
"""


def blocks(document: str, language: str = "sh") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


class Terminal:
    """A shell in the project's folder that keeps what it exports; `filled` is what people write in
    the place of what stands in the documents.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.sandbox = free_port(), f"http://127.0.0.1:{free_port()}"
        self.filled = {":4200": f":{self.port}", "http://127.0.0.1:7878": self.sandbox}
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
        }
        self._exports = folder / "exports"
        self._exports.touch()
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self, block: str) -> str:
        """What the commands print. Each must succeed."""
        script = f"{self._script(block)}\nexport -p > {self._exports}\n"
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            timeout=SECONDS,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        return done.stdout

    def python(self, block: str) -> None:
        self.run(f".venv/bin/python - <<'END'\n{block}END")

    def start(self, command: str) -> None:
        """What runs until it is ended."""
        script = self._script(f"exec {command.strip()}")
        arguments = ["bash", "-c", script]
        self._running.append(
            subprocess.Popen(arguments, cwd=ROOT, env=self.environment, start_new_session=True)
        )

    def end(self) -> None:
        for process in reversed(self._running):  # a worker asks its server until it ends
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)

    def api(self, path: str, **filters: Any) -> Any:
        answer = httpx.post(f"http://127.0.0.1:{self.port}/api/{path}", json=filters, timeout=60)
        return answer.raise_for_status().json()

    def workers(self) -> int:
        """Those that are there for flow runs."""
        found = self.api("work_pools/nudgeflow/workers/filter")
        return sum(each["status"] == "ONLINE" for each in found)

    def _script(self, block: str) -> str:
        for text, value in self.filled.items():
            block = block.replace(text, value)
        assert "..." not in block, f"Something is left to fill in: {block}"
        return f"source {self._exports}\n{block}"


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    one = Terminal(tmp_path_factory.mktemp("terminal"))
    try:
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def sandbox(terminal: Terminal) -> Seeded:
    """A sandbox, as the README runs it on its own."""
    (block,) = [each for each in blocks("README.md") if "-m sandbox" in each]
    seed, serve = block.splitlines()
    terminal.filled[".local/sandbox"] = str(terminal.folder / "sandbox")
    seeded = Seeded.model_validate_json(terminal.run(seed))
    port = terminal.sandbox.rpartition(":")[2]
    terminal.start(f"{serve.partition('#')[0]} --port {port}")
    until(lambda: answers(terminal.sandbox))
    terminal.filled |= {"ACCOUNT_ID": seeded.account_id, "/CAMPAIGN_ID": f"/{seeded.campaign_id}"}
    return seeded


@pytest.fixture(scope="module")
def account(terminal: Terminal, sandbox: Seeded) -> Seeded:
    """The README's way to an account of one's own, up to the worker."""
    with closing(sqlite3.connect(terminal.folder / "crm.db")) as crm, crm:
        people = demo_customers.customers(200, demo_customers.PLANS_BEFORE)
        rows = [tuple(each.values()) for each in people]
        names = list(next(demo_customers.customers(1, demo_customers.PLANS_BEFORE)))
        crm.execute(f"CREATE TABLE customers ({', '.join(names)})")
        crm.executemany(f"INSERT INTO customers VALUES ({', '.join('?' * len(names))})", rows)
    terminal.filled |= {
        "EMAIL=refresh@example.com": f"EMAIL={sandbox.email}",
        "PASSWORD=...": f"PASSWORD={sandbox.password}",
        "API_KEY=...": f"API_KEY={sandbox.api_key}",
        "API_CODE=...": f"API_CODE={sandbox.api_code}",
        "PROFILE_KEY=...": f"PROFILE_KEY={sandbox.profile_key}",
        "postgresql+psycopg://reader:...@crm/sales": f"sqlite:///{terminal.folder}/crm.db",
        "SELECT ... FROM": "SELECT * FROM",
        "s3://lake/nudgescribe": str(terminal.folder / "lake"),
        "CAMPAIGN_ID=...": f"CAMPAIGN_ID={sandbox.campaign_id}",
        "WORKSPACE_ID=...": f"WORKSPACE_ID={sandbox.workspace_id}",
    }
    server, variables, deploy = _own_account()[:3]
    terminal.start(server)
    until(lambda: answers(f"http://127.0.0.1:{terminal.port}/api/health"))
    terminal.run(f"export NUDGEFLOW_ACCOUNT_BASE_URL={terminal.sandbox}\n{variables}")
    *first, worker = deploy.strip().splitlines()
    terminal.run("\n".join(first))
    terminal.start(worker)
    return sandbox


def _own_account() -> list[str]:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Your own account") : text.index("## Documents")]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def test_make_targets_of_the_readme_exist_and_ci_runs_them() -> None:
    commands = "\n".join(blocks("README.md"))
    targets = set(re.findall(r"^make (\S+)", commands, re.MULTILINE))
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
    in_ci = set(re.findall(r"^make (\S+)", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert targets - in_ci == ELSEWHERE.keys() | {"coverage"}
    assert in_ci <= targets
    assert all((ROOT / "tests" / file).exists() for file in ELSEWHERE.values())


def test_own_account_of_the_readme_is_planned_and_refreshed(
    terminal: Terminal, account: Seeded
) -> None:
    *_, commands, look_and_switch_on = _own_account()
    plan, refresh = commands.strip().splitlines()
    terminal.run(plan)
    lake = DataLake(root=str(terminal.folder / "lake"))
    assert list((terminal.folder / "lake/plans").rglob("*.json"))
    terminal.run(f'{refresh} --param \'options={{"guardrails": {{"max_shrink": 1}}}}\'')
    assert lake.runs()["rows"].to_list() == [200]
    assert "on  refresh-monthly" in terminal.run(look_and_switch_on)
    # So do those who have run `make up`.
    (watched,) = [each for each in blocks("README.md") if each.startswith("PREFECT_API_URL")]
    terminal.run(watched)


def test_sandbox_controls_of_the_readme_work(terminal: Terminal, sandbox: Seeded) -> None:
    (block,) = [each for each in blocks("README.md") if "curl" in each]
    terminal.run(block)
    # The last command of the block has switched the faults off.
    assert httpx.get(f"{terminal.sandbox}/sandbox/faults").json() in ([], {"faults": []})


def test_event_of_the_schedules_is_emitted(terminal: Terminal, account: Seeded) -> None:
    switches, emit = blocks("docs/schedule.md")
    assert "off  campaign-inventory-daily" in terminal.run(switches)
    terminal.run(emit)


def test_workers_and_dask_of_the_scale_document_start(terminal: Terminal, account: Seeded) -> None:
    worker, dask = blocks("docs/scale.md")
    until(lambda: terminal.workers() == 1)
    terminal.start(worker)
    until(lambda: terminal.workers() == 2)
    port = str(free_port())
    terminal.filled["8786"] = port
    for command in dask.strip().splitlines():
        terminal.start(command)
    with Client(f"tcp://127.0.0.1:{port}", timeout=SECONDS) as client:
        client.wait_for_workers(1, timeout=SECONDS)


def test_recovery_commands_work(terminal: Terminal, account: Seeded) -> None:
    plan = ".venv/bin/prefect deployment run plan-refresh/plan-refresh"
    terminal.run(f"! {plan} --param campaign_id=none --watch")
    (run,) = terminal.api("flow_runs/filter", flow_runs={"state": {"type": {"any_": ["FAILED"]}}})
    terminal.filled["FLOW_RUN_ID"] = run["id"]
    retry, *others = blocks("docs/recover.md")
    terminal.run(retry)
    runs = {"id": {"any_": [run["id"]]}}
    until(lambda: terminal.api("flow_runs/filter", flow_runs=runs)[0]["run_count"] == 2)
    # What they do is shown by tests/flows/refresh/test_neighbours.
    terminal.filled["campaign_id=CAMPAIGN_ID"] = f"campaign_id={account.campaign_id}"
    for command in others:
        assert "Created flow run" in terminal.run(command)


def test_limit_commands_work(terminal: Terminal, account: Seeded) -> None:
    change, kept, traffic = blocks("docs/limits.md")
    assert "limit nudgescribe-calls: unchanged" in terminal.run(change)
    terminal.run(f"{kept}unset PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE")
    assert "downloads" in terminal.run(traffic)
    terminal.run(".venv/bin/prefect gcl create another --limit 3")


def test_kubernetes_commands_call_programs_with_files_that_exist(
    terminal: Terminal, account: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker, kubectl and Helm are not here: stand-ins write down how they are called."""
    folder = terminal.folder / "kubernetes"
    (folder / "bin").mkdir(parents=True)
    for program in ("docker", "kubectl", "helm"):
        (folder / "bin" / program).write_text(STAND_IN)
        (folder / "bin" / program).chmod(0o755)
    monkeypatch.setitem(terminal.environment, "CALLS", str(folder / "calls"))
    (folder / "auth-string").write_text("admin:none")
    terminal.run(f"export OLD_PATH=$PATH PATH={folder}/bin:$PATH")
    terminal.filled |= {
        "cat auth-string": f"cat {folder}/auth-string",
        "job-template.json --overwrite": f"{folder}/job-template.json --overwrite",
        "> job-template.json": f"> {folder}/job-template.json",
        "work-pool create nudgeflow": "work-pool create on-kubernetes",
    }
    for block in blocks("docs/kubernetes.md"):
        terminal.run(block)
    calls = [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]
    assert {call[0] for call in calls} == {"docker", "kubectl", "helm"}
    named = [word for call in calls for word in call if word.startswith("deployments/")]
    assert len(named) == 3
    assert all((ROOT / file).is_file() for file in named)
    image = "registry.example.com/nudgeflow:0.2.0"
    pools = terminal.api("work_pools/filter")
    (pool,) = [each for each in pools if each["name"] == "on-kubernetes"]
    assert pool["base_job_template"]["variables"]["properties"]["image"]["default"] == image
    terminal.run("export PATH=$OLD_PATH")
    terminal.run("unset PREFECT_API_AUTH_STRING")


def test_alerts_set_up_and_blocks_in_python_work(terminal: Terminal, account: Seeded) -> None:
    """Last, as it changes the blocks."""
    (block,) = blocks("docs/alerts.md")
    for name, value in {"password": "p", "key": "k", "code": "c"}.items():
        (terminal.folder / name).write_text(value)
        terminal.filled[f"/run/secrets/{name}"] = str(terminal.folder / name)
    secrets = ("PASSWORD", "API_KEY", "API_CODE")
    terminal.run(f"unset {' '.join(f'NUDGEFLOW_ACCOUNT_{name}' for name in secrets)}")
    terminal.filled['{"key": "...", "secret": "..."}'] = "{}"
    printed = terminal.run(block)
    assert "automation Nudgeflow: a flow run failed: created" in printed
    terminal.filled |= {'password="..."': 'password="p"'}
    terminal.filled |= {f'api_{name}="..."': f'api_{name}="x"' for name in ("key", "code")}
    (python,) = [each for each in blocks("README.md", "python") if "SqlCrm" in each]
    terminal.python(python)
    (python,) = blocks("docs/kubernetes.md", "python")
    terminal.python(python)
