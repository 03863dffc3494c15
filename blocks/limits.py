"""Limits that all flow runs share, on all workers: Prefect's global concurrency limits.

A slot costs a call of Prefect's server. So a process keeps it and passes it from thread to thread,
until none wants it or other processes want it, too.
"""

import atexit
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from random import uniform
from threading import Event, Lock, Thread
from time import monotonic

from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from blocks.leases import Lease, Leases, LimitMissing, Refused
from nudgescribe.errors import NudgeflowError, Retryable

WAIT_SECONDS = 15 * 60.0
IDLE_SECONDS = 0.3
TURN_SECONDS = 5.0
"""After each, a process lets others have some of its slots, if they may want them."""
LEAST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds between two questions for a slot that were refused."""
TICK_SECONDS = 0.1


class LimitFull(Retryable):
    advice = "Raise it, or look in Prefect's UI under Concurrency for who holds it."
    # A client that went on asking would wait as long once more.
    retry_after: float | None = WAIT_SECONDS


@dataclass(eq=False)
class _User:
    """A thread that wants a slot. It is `called` when it has one or there is an `error`."""

    called: Event = field(default_factory=Event)
    slot: Lease | None = None
    error: NudgeflowError | None = None


class SharedLimit:
    """Lends slots of a limit to threads; one thread of its own speaks with Prefect.

    A connection in use is not cut when its lease cannot be renewed, as Prefect does not answer or
    has forgotten it: nobody would know what the service has made of the call. But no other one
    begins on this slot. So a limit can be exceeded only by a connection in use for longer than
    `leases.SAFE_SECONDS`, if Prefect is away all that time and then grants the slot to another.
    """

    def __init__(
        self, name: str, clock: Callable[[], float] = monotonic, patience: float = WAIT_SECONDS
    ) -> None:
        self._leases = Leases(name, clock)
        self._clock = clock
        self._patience = patience
        self._lock = Lock()
        self._wake = Event()
        self._waiting: deque[_User] = deque()
        self._held: list[Lease] = []
        self._idle: dict[Lease, float] = {}
        self._owed = 0
        self._turn_ends = 0.0
        self._ask_at = 0.0
        self._refusal = "was full"
        Thread(target=self._keep, daemon=True).start()
        atexit.register(self.give_back)

    @contextmanager
    def slot(self) -> Generator[None]:
        """Holds a slot. Raises LimitMissing, and LimitFull after `patience` seconds."""
        user = _User()
        try:
            self._wait(user)
            yield
        finally:
            self._leave(user)

    def give_back(self) -> None:
        """Gives back what is not in use: the process may be gone before it was idle for long."""
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            self._give_back(idle_seconds=0)

    def _wait(self, user: _User) -> None:
        with self._lock:
            self._waiting.append(user)
            self._lend()
        if not user.called.is_set():
            self._wake.set()
            user.called.wait(self._patience)
        if user.error:
            raise user.error
        if user.slot is None:
            minutes = f"{self._patience / 60:g} minutes"
            raise LimitFull(f"For {minutes} the limit '{self._leases.limit}' {self._refusal}.")

    def _leave(self, user: _User) -> None:
        with self._lock:
            if user in self._waiting:
                self._waiting.remove(user)
            if user.slot:
                self._idle[user.slot] = self._clock()
                user.slot = None
            self._lend()

    def _lend(self) -> None:
        """The slot used last is the first to be used again: those that are not needed stay idle."""
        while self._waiting and self._idle and not self._owed:
            slot, since = self._idle.popitem()
            if self._clock() >= slot.safe_until:
                self._idle[slot] = since
                return
            self._waiting[0].slot = slot
            self._waiting.popleft().called.set()

    def _keep(self) -> None:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            while True:
                self._wake.wait(TICK_SECONDS if self._held or self._waiting else None)
                self._wake.clear()
                self._tend()

    def _tend(self) -> None:
        """Does what is due."""
        if self._held and self._clock() >= self._turn_ends:
            self._turn_ends = self._clock() + TURN_SECONDS
            self._owed = self._surplus()
        self._give_back(IDLE_SECONDS)
        for slot in self._held:
            if self._clock() >= slot.renew_at:
                self._leases.renew(slot)
        while self._waiting and not self._owed and self._clock() >= self._ask_at:
            self._ask()

    def _surplus(self) -> int:
        """A quarter of the slots if there are no others; if all are here, perhaps nobody wants one,
        and one will show it.
        """
        try:
            taken, slots = self._leases.look()
        except Refused:
            return 0
        held = len(self._held)
        if taken < slots:
            return 0
        return 1 if held >= slots else (held + 3) // 4

    def _give_back(self, idle_seconds: float) -> None:
        now = self._clock()
        with self._lock:
            back = [
                slot
                for place, (slot, since) in enumerate(self._idle.items())
                if place < self._owed or now - since >= idle_seconds
            ]
            self._idle = {slot: at for slot, at in self._idle.items() if slot not in back}
            self._held = [slot for slot in self._held if slot not in back]
            if back and self._owed:
                # All others who were refused ask before it does.
                self._ask_at = now + LONGEST_PAUSE * uniform(1.1, 1.5)
            self._owed = max(0, self._owed - len(back))
            self._lend()
        for slot in back:
            self._leases.give_back(slot)

    def _ask(self) -> None:
        try:
            slot = self._leases.take()
        except Refused as refused:
            self._refusal = refused.reason
            pause = min(max(refused.pause, LEAST_PAUSE), LONGEST_PAUSE)
            self._ask_at = self._clock() + pause
        except LimitMissing as missing:
            with self._lock:
                while self._waiting:
                    user = self._waiting.popleft()
                    user.error = LimitMissing(missing.problem)
                    user.called.set()
        else:
            with self._lock:
                if not self._held:
                    self._turn_ends = self._clock() + TURN_SECONDS
                self._held.append(slot)
                self._idle[slot] = self._clock()
                self._lend()


_limits = cache(SharedLimit)
_making = Lock()


def get_shared_limit(name: str) -> SharedLimit:
    """This process's share of a limit, one for all of its threads."""
    with _making:
        return _limits(name)
