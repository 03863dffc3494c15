"""Quotas: how many messages an account may publish in a window of time."""

from datetime import UTC, datetime
from math import ceil
from typing import NamedTuple

from fastapi import HTTPException
from sqlalchemy.orm import Session

from nudgescribe.contract import Text
from sandbox.data.models import Account, Usage, now
from sandbox.settings import Settings


class Window(NamedTuple):
    """One of the equal periods that quotas are for; number 0 begins with 1970."""

    number: int
    end: datetime


def current_window(settings: Settings) -> Window:
    """Return the window that it is now."""
    number = int(now().timestamp() // settings.quota_seconds)
    return Window(number, datetime.fromtimestamp((number + 1) * settings.quota_seconds, UTC))


def charge(session: Session, settings: Settings, account_id: str, messages: int) -> None:
    """Count messages as published in the current window.

    Raises HTTPException, 429 with the seconds until the next window, if the quota is too small.
    """
    window = current_window(settings)
    usage = session.get(Usage, (account_id, window.number))
    used = usage.messages if usage else 0
    quota = session.get_one(Account, account_id).quota
    if quota is not None and used + messages > quota:
        wait = ceil((window.end - now()).total_seconds())
        raise HTTPException(429, Text.QUOTA, {"retry-after": str(wait)})
    charged = used + messages
    session.merge(Usage(account_id=account_id, window=window.number, messages=charged))
