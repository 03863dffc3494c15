"""Slots of a global concurrency limit of Prefect, each held by a lease."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.exceptions import ObjectNotFound

from nudgescribe.errors import NudgeflowError

SECONDS = 60.0
"""The shortest that Prefect grants: after it, what a killed process holds is free again."""
RENEW_SECONDS = 15.0
SAFE_SECONDS = 40.0
RENEW_AGAIN_SECONDS = 1.0
ANSWER_SECONDS = 10.0
GONE, FULL = 410, 423


class LimitMissing(NudgeflowError):
    advice = "Create it: `prefect gcl create NAME --limit N`."


class Refused(Exception):
    """There is no slot, for a `reason`; `pause` is the wait in seconds before the next question."""

    def __init__(self, reason: str, pause: float = 1.0) -> None:
        self.reason = reason
        self.pause = pause
        super().__init__(reason)


@dataclass(eq=False)
class Lease:
    """Of a slot. After `safe_until` it may end before it is renewed."""

    id: UUID
    renew_at: float
    safe_until: float


class Leases:
    """Each method is a call of Prefect's server. Prefect's own retries are to be off: a call that
    waits for its next try makes others late.
    """

    def __init__(self, limit: str, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        # With settings like another's it would be that one: a run's, closed when the run ends.
        self._prefect = get_client({"timeout": ANSWER_SECONDS}, sync_client=True)

    def take(self) -> Lease:
        """Raises Refused or LimitMissing."""
        asked = self._clock()
        try:
            answer = self._prefect.increment_concurrency_slots_with_lease(
                [self.limit], 1, "concurrency", SECONDS
            )
            granted = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status != FULL:
                raise Refused(f"could not be asked: Prefect answers {status}") from None
            pause = error.response.headers.get("retry-after", "1")
            raise Refused("was full", float(pause)) from None
        except (httpx.HTTPError, ValueError) as error:
            raise Refused(f"could not be asked: {type(error).__name__}") from None
        if not granted.limits:
            raise LimitMissing(f"There is no global concurrency limit '{self.limit}'.")
        return Lease(granted.lease_id, asked + RENEW_SECONDS, asked + SAFE_SECONDS)

    def renew(self, lease: Lease) -> None:
        """A lease that Prefect knows no longer is neither safe nor renewed again."""
        asked = self._clock()
        try:
            self._prefect.renew_concurrency_lease(lease.id, SECONDS)
        except httpx.HTTPError as error:
            lease.renew_at = asked + RENEW_AGAIN_SECONDS
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == GONE:
                lease.renew_at, lease.safe_until = inf, -inf
        else:
            lease.renew_at, lease.safe_until = asked + RENEW_SECONDS, asked + SAFE_SECONDS

    def give_back(self, lease: Lease) -> None:
        """If it cannot be, it ends by itself."""
        with suppress(httpx.HTTPError):
            self._prefect.release_concurrency_slots_with_lease(lease.id)

    def look(self) -> tuple[int, int]:
        """How many slots are taken by whomever, and how many there are. Raises Refused."""
        try:
            limit = self._prefect.read_global_concurrency_limit_by_name(self.limit)
        except (httpx.HTTPError, ValueError, ObjectNotFound) as error:
            raise Refused(f"could not be read: {type(error).__name__}") from None
        return limit.active_slots, limit.limit
