"""How a sandbox is set up, and the secrets it keeps beside its data."""

import os
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe

from cryptography.fernet import Fernet
from pydantic import BaseModel, Field

DAY = 24 * 60 * 60
MIB = 1024 * 1024


def _new_fernet_key() -> str:
    return Fernet.generate_key().decode()


class Keys(BaseModel):
    """The service's own secrets: what it signs tokens and links with, what it wraps the accounts'
    profile keys with, and its API code.
    """

    api_code: str = Field(default_factory=lambda: token_urlsafe(24), repr=False)
    jwt_key: str = Field(default_factory=lambda: token_urlsafe(48), repr=False)
    link_key: str = Field(default_factory=lambda: token_urlsafe(48), repr=False)
    master_key: str = Field(default_factory=_new_fernet_key, repr=False)


class ChatEndpoint(BaseModel):
    """Any endpoint that speaks OpenAI's chat completions; `url` ends before `/chat/completions`."""

    url: str
    model: str
    key: str = Field(default="", repr=False)


@dataclass(frozen=True)
class Settings:
    """`data` holds what has no place of its own. Durations are seconds, sizes bytes.

    `database` is a SQLAlchemy URL and `exports` an fsspec one; without them both are in `data`.
    `rows_per_file` is the size of an export's page, `phase_seconds` the least time each phase of a
    rerun takes, so that people can watch; `approve_after` approves a run that long after it became
    ready for review. Files above `upload_at_once` are worked off in the background. Messages are
    written by `chat`, if it is given, else from the campaign's template.
    """

    data: Path
    database: str | None = None
    exports: str | None = None
    rows_per_file: int = 50_000
    phase_seconds: float = 0.0
    approve_after: float | None = None
    access_token_seconds: int = 14 * DAY
    refresh_token_seconds: int = 15 * DAY
    link_seconds: int = 60 * 60
    quota_seconds: int = 30 * DAY
    upload_at_once: int = 16 * MIB
    largest_file: int = 1024 * MIB
    largest_body: int = 32 * MIB
    chat: ChatEndpoint | None = None

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data / 'sandbox.db'}"

    @property
    def exports_url(self) -> str:
        return self.exports or str(self.data / "exports")

    @property
    def audit_file(self) -> Path:
        return self.data / "audit.jsonl"

    @property
    def keys(self) -> Keys:
        """The keys of the data folder, made on first use and readable by their owner only."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.data / "keys.json"
        try:
            with open(file, "x", opener=private) as new:
                new.write(Keys().model_dump_json())
        except FileExistsError:
            pass
        return Keys.model_validate_json(file.read_text())


def private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read."""
    return os.open(path, flags, mode=0o600)
