"""How many messages an account may publish within a window of time."""

from datetime import UTC, datetime
from math import ceil
from typing import NamedTuple

from sqlalchemy.orm import Session

from nudgescribe.contract import Text
from sandbox.data.models import Account, Usage, now
from sandbox.errors import Refusal
from sandbox.settings import Settings


class Window(NamedTuple):
    """One of the periods a quota is for, counted from 1970 on."""

    number: int
    end: datetime


def current_window(settings: Settings) -> Window:
    number = int(now().timestamp() // settings.quota_seconds)
    return Window(number, datetime.fromtimestamp((number + 1) * settings.quota_seconds, UTC))


def charge(session: Session, settings: Settings, account_id: str, messages: int) -> None:
    """Counts messages as published. Raises Refusal, with the wait until the next window."""
    window = current_window(settings)
    usage = session.get(Usage, (account_id, window.number))
    used = usage.messages if usage else 0
    quota = session.get_one(Account, account_id).quota
    if quota is not None and used + messages > quota:
        wait = ceil((window.end - now()).total_seconds())
        raise Refusal(429, Text.QUOTA, retry_after=wait)
    charged = used + messages
    session.merge(Usage(account_id=account_id, window=window.number, messages=charged))
