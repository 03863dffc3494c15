"""Leases of slots: the calls of Prefect's server behind a global concurrency limit."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.exceptions import ObjectNotFound

from nudgescribe.errors import NudgeflowError, retry_after

LEASE_SECONDS = 60.0
"""The shortest lease Prefect grants; a killed process holds its slots no longer than this."""
RENEW_SECONDS = 15.0
SAFE_SECONDS = 40.0
RETRY_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0
GONE, FULL = 410, 423


class LimitMissing(NudgeflowError):
    """Prefect has no concurrency limit of the name in the account block."""

    advice = "Create it: `prefect gcl create NAME --limit N`."


class NoSlot(Exception):
    """Prefect grants no slot, for `reason`; ask again after `pause` seconds."""

    def __init__(self, reason: str, pause: float = 1.0) -> None:
        self.reason = reason
        self.pause = pause
        super().__init__(reason)


@dataclass(eq=False)
class Lease:
    """The lease of a slot; both times are by the clock of its `Leases`.

    After `safe_until`, Prefect may end a lease that was not renewed, and grant its slot to others.
    """

    id: UUID
    renew_at: float
    safe_until: float


class Leases:
    """The leases of one limit. Each method calls Prefect's server once.

    Call them with Prefect's own retries switched off: a call that retries would delay the others.
    """

    def __init__(self, limit: str, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        # Prefect shares clients of equal settings, and a flow run closes its own when it ends.
        self._prefect = get_client({"timeout": TIMEOUT_SECONDS}, sync_client=True)

    def acquire(self) -> Lease:
        """Acquire a slot. Raises NoSlot, LimitMissing."""
        asked = self._clock()
        try:
            answer = self._prefect.increment_concurrency_slots_with_lease(
                [self.limit], 1, "concurrency", LEASE_SECONDS
            )
            granted = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status != FULL:
                raise NoSlot(f"could not be asked: Prefect answers {status}") from None
            pause = retry_after(error.response.headers)
            raise NoSlot("was full", RETRY_SECONDS if pause is None else pause) from None
        except (httpx.HTTPError, ValueError) as error:
            raise NoSlot(f"could not be asked: {type(error).__name__}") from None
        if not granted.limits:
            raise LimitMissing(f"There is no global concurrency limit '{self.limit}'.")
        return Lease(granted.lease_id, asked + RENEW_SECONDS, asked + SAFE_SECONDS)

    def renew(self, lease: Lease) -> None:
        """Renew a lease; if Prefect no longer knows it, mark it unsafe and never renew it again."""
        asked = self._clock()
        try:
            self._prefect.renew_concurrency_lease(lease.id, LEASE_SECONDS)
        except httpx.HTTPError as error:
            lease.renew_at = asked + RETRY_SECONDS
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == GONE:
                lease.renew_at, lease.safe_until = inf, -inf
        else:
            lease.renew_at, lease.safe_until = asked + RENEW_SECONDS, asked + SAFE_SECONDS

    def release(self, lease: Lease) -> None:
        """Release a slot; if Prefect does not answer, the lease ends by itself."""
        with suppress(httpx.HTTPError):
            self._prefect.release_concurrency_slots_with_lease(lease.id)

    def read_usage(self) -> tuple[int, int]:
        """Return the number of slots in use by any process, and the limit. Raises NoSlot."""
        try:
            limit = self._prefect.read_global_concurrency_limit_by_name(self.limit)
        except (httpx.HTTPError, ValueError, ObjectNotFound) as error:
            raise NoSlot(f"could not be read: {type(error).__name__}") from None
        return limit.active_slots, limit.limit
