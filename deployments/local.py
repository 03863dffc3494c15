"""Start the parts of a local stack: a seeded sandbox, a CRM, saved blocks."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import httpx

from blocks import CrmSource, DataLake, FileCrm, NudgescribeAccount, SqlCrm
from blocks.saved import MAIN
from nudgescribe.errors import NudgeflowError
from sandbox import demo_customers
from sandbox.seed import Seeded

STARTUP_SECONDS = 60.0
# The first start creates Prefect's database.
PREFECT_SECONDS = 120.0


class NotSeeded(NudgeflowError):
    """A sandbox has no first account."""


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Return once `url` answers.

    Raises SystemExit if the process ends or `seconds` have passed.
    """
    end = monotonic() + seconds
    while monotonic() < end and process.poll() is None:
        try:
            httpx.get(url)
        except httpx.TransportError:
            sleep(0.2)
        else:
            return
    raise SystemExit(f"{url} does not answer; the output above may say why.")


@contextmanager
def child(
    *arguments: str, quiet: bool = False, folder: str | None = None, **settings: str
) -> Generator[subprocess.Popen[bytes], None, None]:
    """Run a Python process in a folder, with variables of its own, until the context ends.

    What it prints is dropped if `quiet`; its errors are not.
    """
    # The current folder may have a `flows` or a `sandbox` of its own, which is not meant.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", **settings}
    printed = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=printed, env=environment, cwd=folder
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


class PrefectServer:
    """A Prefect server, which may still be starting."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self._url = url
        self.process = process

    def wait(self) -> None:
        """Return once it answers. Raises SystemExit if it does not."""
        wait_for(f"{self._url}/api/health", self.process, PREFECT_SECONDS)


@contextmanager
def prefect_server(port: int, **settings: str) -> Generator[PrefectServer, None, None]:
    """Run a Prefect server, with variables of its own, until the context ends."""
    command = ("-m", "prefect", "server", "start", "--port", str(port))
    # As it makes its database, Prefect looks for packages in the current folder first, whatever
    # Python is told.
    home = os.environ["PREFECT_HOME"]
    with child(*command, quiet=True, folder=home, **settings) as process:
        yield PrefectServer(f"http://127.0.0.1:{port}", process)


@contextmanager
def sandbox(data: Path, port: int, *options: str) -> Generator[str, None, None]:
    """Run a sandbox until the context ends; yield its base URL."""
    serve = ("-m", "sandbox", "serve", "--data", str(data), "--port", str(port), *options)
    with child(*serve) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, STARTUP_SECONDS)
        yield url


def approve(url: str, campaign_id: str) -> None:
    """Approve the messages of a sandbox's campaign."""
    httpx.post(f"{url}/sandbox/campaigns/{campaign_id}/approve").raise_for_status()


def seed(data: Path, *options: str) -> Seeded:
    """Create an account with a published campaign in a sandbox's data folder. Raises NotSeeded."""
    command = [sys.executable, "-P", "-m", "sandbox", "seed", "--data", str(data), *options]
    seeding = subprocess.run(command, capture_output=True, check=False, text=True)
    if seeding.returncode:
        why = seeding.stderr.strip().splitlines() or ["It ended without a word."]
        raise NotSeeded(f"The sandbox could not be seeded: {why[-1]}")
    return Seeded.model_validate_json(seeding.stdout)


def seed_once(data: Path) -> Seeded:
    """Seed a data folder that is kept, or return the account it was seeded with."""
    file = data / "seeded.json"
    if not file.exists():
        account = seed(data)
        file.touch(mode=0o600)
        file.write_text(account.model_dump_json())
    return Seeded.model_validate_json(file.read_text())


def sql_crm(database: Path) -> SqlCrm:
    """Create a CRM in SQLite: the sandbox's customers, of whom some have joined, left or changed
    their plan since, and some have invalid values.

    An older database at this path is replaced.
    """
    demo_customers.write_crm(database)
    given = {"url": f"sqlite:///{database.resolve()}", "query": demo_customers.QUERY}
    return SqlCrm.model_validate(given)


def file_crm(path: Path) -> FileCrm:
    """Return the block of a list in a file."""
    return FileCrm(path=str(path.resolve()))


def load_blocks() -> tuple[NudgescribeAccount, DataLake]:
    """Return the account and the lake that are saved under the name *main*."""
    account, lake = NudgescribeAccount.load(MAIN), DataLake.load(MAIN)
    assert isinstance(account, NudgescribeAccount)
    assert isinstance(lake, DataLake)
    return account, lake


def save_blocks(
    url: str, seeded: Seeded, crm: CrmSource, lake: Path, **options: str
) -> tuple[NudgescribeAccount, DataLake]:
    """Save the three blocks of a refresh under the name *main*; `options` are the account's."""
    secrets = seeded.model_dump(include={"email", "password", "api_key", "api_code", "profile_key"})
    account = NudgescribeAccount.model_validate(
        {
            "base_url": url,
            "campaign_url": f"{url}/#campaign-{{campaign_id}}",
            **secrets,
            **options,
        }
    )
    data_lake = DataLake(root=str(lake.resolve()))
    for block in (account, crm, data_lake):
        block.save(MAIN, overwrite=True)
    return account, data_lake
