"""Quotas: how many messages an account may generate and publish in a window of time."""

from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from nudgescribe.contract import Status, Text
from sandbox.data.models import Account, Campaign, Charged, Usage, now
from sandbox.errors import JobFailed
from sandbox.settings import Settings, open_private


class QuotaReached(JobFailed):
    """The account's quota is too small; it has a new one in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(Text.QUOTA)
        self.retry_after = retry_after


class Window(NamedTuple):
    """One of the equal periods that quotas are for; number 0 begins with 1970."""

    number: int
    end: datetime


class PastUsage(NamedTuple):
    """What an account used of a window, and when that ended."""

    end: datetime
    usage: Usage


def current_window(settings: Settings) -> Window:
    """Return the window that it is now."""
    number = int(now().timestamp() // settings.quota_seconds)
    return Window(number, _end(settings, number))


def _end(settings: Settings, window: int) -> datetime:
    return datetime.fromtimestamp((window + 1) * settings.quota_seconds, UTC)


def used(session: Session, settings: Settings, account_id: str) -> Usage:
    """Return what an account has used of the current window."""
    window = current_window(settings).number
    return session.get(Usage, (account_id, window)) or Usage(
        account_id=account_id, window=window, generated=0, messages=0
    )


def history(session: Session, settings: Settings, account_id: str, most: int) -> list[PastUsage]:
    """Return what an account has used in earlier windows, the newest first."""
    query = (
        select(Usage)
        .where(Usage.account_id == account_id, Usage.window < current_window(settings).number)
        .order_by(Usage.window.desc())
        .limit(most)
    )
    return [PastUsage(_end(settings, usage.window), usage) for usage in session.scalars(query)]


def check(session: Session, settings: Settings, account_id: str, messages: int) -> None:
    """Check that the account's quota is not used up, and has room for `messages` more.

    Raises QuotaReached.
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


def charge_export(
    session: Session, settings: Settings, account_id: str, campaign: Campaign, messages: int
) -> None:
    """Charge those of the `messages` in the current run's export that have not been charged yet.

    Raises QuotaReached.
    """
    run = {"campaign_id": campaign.id, "run_number": campaign.current_run}
    charged = session.get(Charged, run)
    if charged is None:
        # An earlier version charged all of a run when it was published, and did not write it down.
        before = messages if campaign.status == Status.PUBLISHED else 0
        charged = Charged(**run, messages=before)
        session.add(charged)
    charge(session, settings, account_id, published=max(messages - charged.messages, 0))
    charged.messages = max(messages, charged.messages)


def count_pages_call(settings: Settings, account_id: str) -> None:
    """Count a call that has counted pages, which no quota limits.

    The count is the size of a file: a poll must not wait for the database's writer.
    """
    file = _pages_calls(settings, account_id)
    file.parent.mkdir(exist_ok=True)
    with open(file, "ab", opener=open_private) as calls:
        calls.write(b".")


def count_pages_calls(settings: Settings, account_id: str) -> int:
    """Return how many calls of the current window have counted pages."""
    try:
        return _pages_calls(settings, account_id).stat().st_size
    except FileNotFoundError:
        return 0


def _pages_calls(settings: Settings, account_id: str) -> Path:
    return settings.pages_calls / f"{account_id}-{current_window(settings).number}"
