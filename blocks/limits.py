"""Concurrency limits that all flow runs share on all workers, as Prefect's global ones.

Acquiring and releasing a slot costs two calls of Prefect's server. So a process keeps a slot and
hands it from thread to thread, until no thread wants it or another process may. Prefect's own
`concurrency` acquires one for each use: `python -m benchmarks.limits` compares the two.
"""

import atexit
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import uniform
from threading import Event, Lock, Thread
from time import monotonic

from prefect.context import SettingsContext, get_settings_context

from blocks.leases import Lease, Leases, LimitMissing, NoSlot
from nudgescribe import telemetry
from nudgescribe.caching import cache_for_threads
from nudgescribe.errors import NudgeflowError, Retryable

WAIT_SECONDS = 15 * 60.0
IDLE_SECONDS = 0.3
TURN_SECONDS = 5.0
"""After each turn, a process gives up some of its slots if the limit is used up."""
LEAST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds to wait after Prefect has granted no slot."""
TICK_SECONDS = 0.1


class LimitFull(Retryable):
    """All slots of a concurrency limit stayed in use while a call waited."""

    advice = "Raise it, or look in Prefect's UI under Concurrency for who holds it."
    # An immediate retry of the client would only wait as long again.
    retry_after: float | None = WAIT_SECONDS


@dataclass(eq=False)
class _Waiter:
    """A thread that wants a slot; `done` is set once it has a slot or an error."""

    done: Event = field(default_factory=Event)
    slot: Lease | None = None
    error: NudgeflowError | None = None


class SharedLimit:
    """Lend slots of a limit to this process's threads; a thread of its own calls Prefect.

    A slot in use stays in use even if its lease cannot be renewed: if the connection were cut,
    nobody would know what the service had done. But no further use of the slot begins. So the
    limit is exceeded only if a use lasts longer than `leases.SAFE_SECONDS` while Prefect cannot
    be reached, and Prefect then grants the slot to another process.
    """

    def __init__(
        self, name: str, clock: Callable[[], float] = monotonic, patience: float = WAIT_SECONDS
    ) -> None:
        self._leases = Leases(name, clock)
        self._clock = clock
        self._patience = patience
        self._lock = Lock()
        self._wake = Event()
        self._waiting: deque[_Waiter] = deque()
        self._held: list[Lease] = []
        self._idle: dict[Lease, float] = {}  # with the time since when
        self._surplus = 0  # slots to give up before any is lent again
        self._turn_ends = 0.0
        self._ask_at = 0.0
        self._refusal = "was full"
        # Not built in the thread, which does not have the settings in force here.
        self._settings = without_retries()
        Thread(target=self._run, daemon=True).start()
        atexit.register(self.release_idle)

    @contextmanager
    def slot(self) -> Generator[None]:
        """Hold a slot in the block. Raises LimitMissing, or LimitFull after `patience` seconds."""
        waiter = _Waiter()
        try:
            self._wait(waiter)
            yield
        finally:
            self._leave(waiter)

    def release_idle(self) -> None:
        """Release all slots that are not in use, as the process may end before they time out."""
        with self._settings.model_copy():
            self._release(idle_seconds=0)

    # ---- in the threads that use slots --------------------------------------------------------

    def _wait(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiting.append(waiter)
            self._lend()
        if not waiter.done.is_set():
            began = monotonic()
            self._wake.set()
            waiter.done.wait(self._patience)
            telemetry.waited("limit", monotonic() - began)
        if waiter.error:
            raise waiter.error
        if waiter.slot is None:
            minutes = f"{self._patience / 60:g} minutes"
            raise LimitFull(f"For {minutes} the limit '{self._leases.limit}' {self._refusal}.")

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            if waiter.slot:
                self._idle[waiter.slot] = self._clock()
                waiter.slot = None
            self._lend()

    def _lend(self) -> None:
        """Lend idle slots to waiting threads, the one used last first, so that others time out."""
        while self._waiting and self._idle and not self._surplus:
            slot, since = self._idle.popitem()
            if self._clock() >= slot.safe_until:
                self._idle[slot] = since
                return
            self._waiting[0].slot = slot
            self._waiting.popleft().done.set()

    # ---- in the thread that calls Prefect -----------------------------------------------------

    def _run(self) -> None:
        with self._settings.model_copy():
            while True:
                self._wake.wait(TICK_SECONDS if self._held or self._waiting else None)
                self._wake.clear()
                self._tick()

    def _tick(self) -> None:
        """Give up, renew and acquire slots as far as each is due."""
        if self._held and self._clock() >= self._turn_ends:
            self._turn_ends = self._clock() + TURN_SECONDS
            self._surplus = self._count_surplus()
        self._release(IDLE_SECONDS)
        for slot in self._held:
            if self._clock() >= slot.renew_at:
                self._leases.renew(slot)
        while self._waiting and not self._surplus and self._clock() >= self._ask_at:
            self._acquire()

    def _count_surplus(self) -> int:
        """Return how many slots to give up at the end of a turn.

        0 if the limit has free slots, which other processes can take.
        1 if this process holds all slots: a process that wants one will take it.
        A quarter of the held slots, rounded up, if other processes hold the rest.
        """
        try:
            taken, slots = self._leases.read_usage()
        except NoSlot:
            return 0
        held = len(self._held)
        if taken < slots:
            return 0
        return 1 if held >= slots else (held + 3) // 4

    def _release(self, idle_seconds: float) -> None:
        """Release idle slots: those of the surplus, and those idle for `idle_seconds`."""
        now = self._clock()
        with self._lock:
            released = [
                slot
                for index, (slot, since) in enumerate(self._idle.items())
                if index < self._surplus or now - since >= idle_seconds
            ]
            self._idle = {slot: at for slot, at in self._idle.items() if slot not in released}
            self._held = [slot for slot in self._held if slot not in released]
            if released and self._surplus:
                # Longer than any pause of the others, so that they ask first.
                self._ask_at = now + LONGEST_PAUSE * uniform(1.1, 1.5)
            self._surplus = max(0, self._surplus - len(released))
            self._lend()
        for slot in released:
            self._leases.release(slot)

    def _acquire(self) -> None:
        try:
            slot = self._leases.acquire()
        except NoSlot as refusal:
            self._refusal = refusal.reason
            pause = min(max(refusal.pause, LEAST_PAUSE), LONGEST_PAUSE)
            self._ask_at = self._clock() + pause
        except LimitMissing as error:
            self._fail_all(error.problem)
        else:
            with self._lock:
                if not self._held:
                    self._turn_ends = self._clock() + TURN_SECONDS
                self._held.append(slot)
                self._idle[slot] = self._clock()
                self._lend()

    def _fail_all(self, problem: str) -> None:
        with self._lock:
            while self._waiting:
                waiter = self._waiting.popleft()
                waiter.error = LimitMissing(problem)
                waiter.done.set()


def without_retries() -> SettingsContext:
    """Return a context in which Prefect does not repeat calls, for those that are repeated here."""
    context = get_settings_context()
    # Prefect's `temporary_settings` reads all of them again, which takes longer than the calls.
    client = context.settings.client.model_copy(update={"max_retries": 0})
    settings = context.settings.model_copy(update={"client": client})
    return context.model_copy(update={"settings": settings})


@cache_for_threads
def get_shared_limit(name: str) -> SharedLimit:
    """Return this process's share of a limit, the same one for all threads."""
    return SharedLimit(name)
