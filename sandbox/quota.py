"""How many messages an account may publish within a window of time."""

from math import ceil
from time import time

from sqlalchemy.orm import Session

from nudgescribe.contract import Text
from sandbox.refusals import Refusal
from sandbox.settings import Settings
from sandbox.store import Account, Usage


def charge(session: Session, settings: Settings, account_id: str, messages: int) -> None:
    """Counts messages as published. Raises Refusal, with the wait until the next window."""
    window, passed = divmod(time(), settings.quota_seconds)
    usage = session.get(Usage, (account_id, int(window)))
    used = usage.messages if usage else 0
    quota = session.get_one(Account, account_id).quota
    if quota is not None and used + messages > quota:
        raise Refusal(429, Text.QUOTA, retry_after=ceil(settings.quota_seconds - passed))
    session.merge(Usage(account_id=account_id, window=int(window), messages=used + messages))
