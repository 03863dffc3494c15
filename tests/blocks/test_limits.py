"""Limits shared between runs, against a real Prefect server."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from signal import SIGTERM
from threading import Event, Lock, Thread
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from blocks import limits
from blocks.leases import RENEW_SECONDS, Lease, Leases, LimitMissing, NoSlot
from blocks.limits import TURN_SECONDS, LimitFull, SharedLimit, get_shared_limit
from tests.conftest import Company, Sandbox

DEADLINE_SECONDS = 30.0
"""Seconds; less than a turn."""


@dataclass
class Prefect:
    """Prefect's server, what it has answered to its calls, and a clock that can be advanced."""

    client: SyncPrefectClient
    takes: list[Any]
    renewals: list[Any]
    looks: list[Any]
    ahead: float = 0.0

    def clock(self) -> float:
        return monotonic() + self.ahead

    @property
    def taken(self) -> list[str]:
        """The leases that were granted."""
        return [answer.json()["lease_id"] for answer in self.takes if answer]

    def new_limit(self, slots: int, name: str = "") -> str:
        limit = GlobalConcurrencyLimitCreate(name=name or f"limit-{uuid4()}", limit=slots)
        self.client.create_global_concurrency_limit(limit)
        return limit.name

    def in_use(self, name: str) -> int:
        return self.client.read_global_concurrency_limit_by_name(name).active_slots


@pytest.fixture
def prefect(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prefect]:
    def answers_to(method: str) -> list[Any]:
        """What the calls of a method give, each once it is over; None for an error."""
        answers: list[Any] = []
        real = getattr(SyncPrefectClient, method)

        def call(*arguments: object) -> Any:
            answer = None
            try:
                answer = real(*arguments)
            finally:
                answers.append(answer)
            return answer

        monkeypatch.setattr(SyncPrefectClient, method, call)
        return answers

    monkeypatch.setattr(limits, "LEAST_PAUSE", 0.05)
    monkeypatch.setattr(limits, "LONGEST_PAUSE", 0.2)
    with get_client(sync_client=True) as client:
        yield Prefect(
            client,
            takes=answers_to("increment_concurrency_slots_with_lease"),
            renewals=answers_to("renew_concurrency_lease"),
            looks=answers_to("read_global_concurrency_limit_by_name"),
        )


def eventually(holds: Callable[[], bool], seconds: float = 0.01) -> bool:
    """Return whether it holds before the deadline; look again after each pause of `seconds`."""
    end = monotonic() + DEADLINE_SECONDS
    while not (so := holds()) and monotonic() < end:
        sleep(seconds)
    return so


def test_missing_limit_is_an_error_until_created(prefect: Prefect) -> None:
    name = f"limit-{uuid4()}"
    limit = SharedLimit(name)
    with pytest.raises(LimitMissing, match=f"'{name}'.*prefect gcl create NAME --limit N"):
        with limit.slot():
            pass
    prefect.new_limit(1, name)
    with limit.slot():
        assert prefect.in_use(name) == 1


def test_threads_share_few_slots_and_release_them(prefect: Prefect) -> None:
    name = prefect.new_limit(3)
    limit = SharedLimit(name)
    lock, inside, seen = Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal inside, seen
        with limit.slot():
            with lock:
                inside += 1
                seen = max(seen, inside)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(500)))
        list(pool.map(work, range(500)))
    assert 1 <= seen <= 3
    assert len(prefect.taken) <= 4
    assert eventually(lambda: prefect.in_use(name) == 0)


def test_limit_holds_between_processes(prefect: Prefect, company: Company) -> None:
    """What a process has of a limit is its `SharedLimit`."""
    name = prefect.new_limit(2)
    traffic = f"{company.sandbox.url}/sandbox/traffic"
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        shares = [SharedLimit(name) for _ in range(2)]
        clients = [stack.enter_context(company.client(calls=one.slot)) for one in shares]
        for client in clients:
            client.campaigns()
        httpx.delete(traffic)
        calls = [pool.submit(client.campaigns) for client in clients * 60]
        assert all(call.result() for call in calls)
    assert httpx.get(traffic).json()["calls"]["most"] == 2


def test_slot_is_released_after_an_error(prefect: Prefect) -> None:
    name = prefect.new_limit(1)
    with pytest.raises(ValueError, match="any"):
        with SharedLimit(name).slot():
            raise ValueError("any")
    assert eventually(lambda: prefect.in_use(name) == 0)


def test_cancelled_run_releases_its_slots(prefect: Prefect, company: Company) -> None:
    name = prefect.new_limit(4)

    def run() -> None:
        with company.account(calls_limit=name).get_client() as client:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: client.campaigns(), range(20)))
            raise TerminationSignal(SIGTERM)

    with pytest.raises(TerminationSignal):
        run()
    assert prefect.taken
    assert eventually(lambda: prefect.in_use(name) == 0)


def test_slot_in_use_for_long_is_passed_to_other_processes(prefect: Prefect) -> None:
    name = prefect.new_limit(1)
    busy, other = SharedLimit(name, prefect.clock), SharedLimit(name)
    was_there, wanted = Event(), Event()

    def want() -> None:
        wanted.set()
        with other.slot():
            was_there.set()

    with busy.slot():
        waiting = Thread(target=want)
        waiting.start()
        assert wanted.wait(DEADLINE_SECONDS)
    prefect.ahead += TURN_SECONDS
    used = 0
    end = monotonic() + DEADLINE_SECONDS
    while not was_there.is_set() and monotonic() < end:
        with busy.slot():
            used += 1
    had_its_turn = was_there.is_set()
    waiting.join()
    assert had_its_turn
    assert used > 1


def test_slot_of_unused_limit_is_kept(prefect: Prefect) -> None:
    limit = SharedLimit(prefect.new_limit(2), prefect.clock)
    for times in range(1, 3):
        with limit.slot():
            prefect.ahead += TURN_SECONDS
            assert eventually(lambda looked=times: len(prefect.looks) == looked)
    assert len(prefect.taken) == 1


def test_lease_is_renewed_and_not_lent_once_lost(prefect: Prefect) -> None:
    name = prefect.new_limit(2)
    limit = SharedLimit(name, prefect.clock)
    with limit.slot():
        prefect.ahead += RENEW_SECONDS
        assert eventually(lambda: len(prefect.renewals) == 1)
        prefect.client.release_concurrency_slots_with_lease(prefect.taken[0])  # type: ignore
        prefect.ahead += RENEW_SECONDS
        assert eventually(lambda: len(prefect.renewals) == 2)

    def is_asked_anew() -> bool:
        with limit.slot():
            return len(prefect.taken) == 2 and prefect.in_use(name) == 1

    assert eventually(is_asked_anew)


def test_deleted_limit_is_an_error(prefect: Prefect) -> None:
    name = prefect.new_limit(1)
    limit = SharedLimit(name, prefect.clock)
    with limit.slot():
        prefect.client.delete_global_concurrency_limit_by_name(name)
        prefect.ahead += TURN_SECONDS

    def is_missed() -> bool:
        try:
            with limit.slot():
                return False
        except LimitMissing:
            return True

    assert eventually(is_missed, seconds=0.5)


def test_full_or_closed_limit_grants_no_slot(prefect: Prefect) -> None:
    name = prefect.new_limit(1)
    late = SharedLimit(name, patience=0.1)
    with SharedLimit(name).slot(), pytest.raises(LimitFull, match=f"limit '{name}' was full"):
        with late.slot():
            pass
    closed = SharedLimit(prefect.new_limit(0), patience=0.1)

    def says_why() -> bool:
        with pytest.raises(LimitFull) as caught:
            with closed.slot():
                pass
        return "could not be asked: Prefect answers 422" in str(caught.value)

    assert eventually(says_why)


@pytest.fixture
def dead_prefect(prefect_server: None, sandbox: Sandbox) -> Iterator[None]:
    """In Prefect's place a service that drops every connection."""
    everything = {"endpoint": "/v1/", "drop": "before"}
    httpx.put(f"{sandbox.url}/sandbox/faults", json=everything).raise_for_status()
    there = {PREFECT_API_URL: f"{sandbox.url}/v1", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(there):
        yield
    httpx.delete(f"{sandbox.url}/sandbox/faults").raise_for_status()


def test_unreachable_prefect_grants_no_slot(dead_prefect: None) -> None:
    with pytest.raises(LimitFull, match="could not be asked: Re\\w+Error"):
        with SharedLimit("any", patience=0.5).slot():
            pass


def test_unreachable_prefect_leaves_a_lease_as_it_is(dead_prefect: None) -> None:
    leases = Leases("any", clock=lambda: 100.0)
    lease = Lease(uuid4(), renew_at=99, safe_until=120)
    leases.renew(lease)
    assert (lease.renew_at, lease.safe_until) == (101, 120)
    leases.release(lease)
    with pytest.raises(NoSlot, match="could not be read"):
        leases.read_usage()


def test_limit_is_shared_by_all_threads_of_a_process(prefect: Prefect) -> None:
    with ThreadPoolExecutor(4) as pool:
        shares = set(pool.map(get_shared_limit, ["the-same"] * 8))
    assert len(shares) == 1
