"""Quotas: how many messages an account may generate and publish in a window of time."""

from datetime import UTC, datetime
from math import ceil
from typing import NamedTuple

from sqlalchemy.orm import Session

from nudgescribe.contract import Text
from sandbox.data.models import Account, Usage, now
from sandbox.errors import JobFailed
from sandbox.settings import Settings


class QuotaReached(JobFailed):
    """The account's quota is too small; it has a new one in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(Text.QUOTA)
        self.retry_after = retry_after


class Window(NamedTuple):
    """One of the equal periods that quotas are for; number 0 begins with 1970."""

    number: int
    end: datetime


def current_window(settings: Settings) -> Window:
    """Return the window that it is now."""
    number = int(now().timestamp() // settings.quota_seconds)
    return Window(number, datetime.fromtimestamp((number + 1) * settings.quota_seconds, UTC))


def used(session: Session, settings: Settings, account_id: str) -> Usage:
    """Return what an account has used of the current window."""
    key = (account_id, current_window(settings).number)
    return session.get(Usage, key) or Usage(
        account_id=account_id, window=key[1], generated=0, messages=0, pages=0
    )


def check(session: Session, settings: Settings, account_id: str, messages: int) -> None:
    """Check that so many messages more, or none, are within the account's quota.

    A quota that is used up is too small for none, too. Raises QuotaReached.
    """
    usage = used(session, settings, account_id)
    quota = session.get_one(Account, account_id).quota
    if quota is not None and (usage.total >= quota or usage.total + messages > quota):
        raise QuotaReached(ceil((current_window(settings).end - now()).total_seconds()))


def charge(
    session: Session, settings: Settings, account_id: str, *, generated: int = 0, published: int = 0
) -> None:
    """Count messages in the current window. Raises QuotaReached, as `check` does."""
    check(session, settings, account_id, generated + published)
    usage = session.merge(used(session, settings, account_id))
    usage.generated += generated
    usage.messages += published


def count_pages_call(session: Session, settings: Settings, account_id: str) -> None:
    """Count a call that has counted pages, which no quota limits."""
    session.merge(used(session, settings, account_id)).pages += 1
