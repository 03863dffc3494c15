"""Two lakes, two Prefect servers, two versions of the project, all after the same campaign."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from blocks import DataLake, FileCrm
from blocks.storage.files import AlreadyThere, Files
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from nudgescribe.contract import Status
from tasks.customers.guardrails import Guardrails
from tests.conftest import Company, customers
from tests.support import prefect_servers
from tests.support.prefect_servers import PrefectServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FOLDER = "refreshes/campaign_id=C"
CLAIM = """
import sys
from contextvars import copy_context
from datetime import UTC, datetime
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.logging import disable_run_logger
from prefect.states import Running

from blocks import DataLake, NudgescribeAccount
from nudgescribe.errors import NudgeflowError
from tasks.journal.refresh import Refresh
from tasks.refresh.claim import claim_campaign

@flow
def nothing(): ...

with get_client(sync_client=True) as client, disable_run_logger():
    run = client.create_flow_run(nothing, state=Running())
    me = Refresh(id=str(run.id), started=datetime.now(UTC))
    account = NudgescribeAccount(email="a@b.c", password="p", api_key="k", api_code="c")
    lake = DataLake(root=sys.argv[1])
    try:
        claim = claim_campaign.fn(account, lake, "C", me, sys.argv[2], 0.001)
        print("works" if claim.refresh else claim.message)
    except NudgeflowError as error:
        print(error)
"""


def claimed(server: PrefectServer, lake: Path, overlap: str) -> str:
    """What a flow run of a server gets that wants a campaign; its process ends with the claim."""
    command = [sys.executable, "-c", CLAIM, str(lake), overlap]
    done = subprocess.run(
        command, cwd=ROOT, env=server.environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def test_flow_run_of_another_server_is_not_taken_for_ended(
    prefect: PrefectServer, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    with prefect_servers.plain(tmp_path / "other") as other:
        assert claimed(prefect, lake, "join") == "works"
        told = [claimed(other, lake, overlap) for overlap in ("skip", "join", "fail")]
        assert all(f"known only to Prefect's server {prefect.url}" in each for each in told)
        assert all("abandon-refresh/abandon-refresh --param campaign_id=C" in each for each in told)
        # Its own server knows that its process has ended, with nothing made of its list.
        assert claimed(prefect, lake, "join") == "works"


def test_campaign_of_two_lakes_does_not_run_twice_at_a_time(
    prefect: PrefectServer, reviewed_company: Company, tmp_path: Path
) -> None:
    company, list_ = reviewed_company, tmp_path / "list.csv"
    customers(120).write_csv(list_)
    lakes = [DataLake(root=str(tmp_path / name)) for name in ("one", "other")]
    options = RefreshOptions(guardrails=Guardrails(max_shrink=1))

    def refresh(lake: DataLake) -> bool:
        blocks = {"account": company.account(), "crm": FileCrm(path=str(list_)), "lake": lake}
        state = campaign_refresh(
            company.seeded.campaign_id, **blocks, options=options, return_state=True
        )
        return state.is_completed()

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(copy_context().run, refresh, lake) for lake in lakes]
    done = [each.result() for each in running]
    assert any(done)
    runs = company.history()
    assert {run.status for run in runs} == {Status.PUBLISHED}
    assert len(runs) == 1 + sum(done)
    assert [len(lake.runs()) for lake in lakes] == done


class Register:
    """How version 0.1 claims a campaign: numbered entries, of which the newest counts."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def newest(self) -> int:
        while names := self._files.list_names(FOLDER):
            self._files.read(f"{FOLDER}/{names[-1]}")
            return int(names[-1].removesuffix(".json"))
        return 0

    def add(self, number: int) -> bool:
        path = f"{FOLDER}/{number:08d}.json"
        refresh = {"id": str(uuid4()), "started": datetime.now(UTC).isoformat()}
        entry = {"refresh": refresh, "flow_run": refresh["id"], "host": "h", "pid": os.getpid()}
        try:
            self._files.create(path, json.dumps(entry).encode())
        except AlreadyThere:
            return False
        if f"{FOLDER}/{self._files.list_names(FOLDER)[-1]}" != path:
            self._files.remove(path)
            return False
        return True


def test_campaign_is_not_claimed_by_version_01_and_this_one(
    prefect: PrefectServer, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    old = Register(DataLake(root=str(lake)).files)
    assert old.add(old.newest() + 1)
    # Nobody knows what became of its flow run: it is not taken for ended.
    assert "server of version 0.1" in claimed(prefect, lake, "skip")
    ended = json.loads((lake / FOLDER / "00000001.json").read_text())
    (lake / FOLDER / "00000001.json").write_text(json.dumps({**ended, "open": False}))
    late = old.newest()
    assert claimed(prefect, lake, "join") == "works"
    # From now on it stops, whether it looks first or had looked before.
    with pytest.raises(ValueError, match="schema_version"):
        old.newest()
    assert not old.add(late + 1)
