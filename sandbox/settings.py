"""Settings of a sandbox, and the secrets beside its data."""

import os
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Literal

from cryptography.fernet import Fernet
from pydantic import BaseModel, Field
from sqlalchemy import URL

Envelope = Literal["object", "data", "bare", "camel"]
DAY = 24 * 60 * 60
MIB = 1024 * 1024


def _new_fernet_key() -> str:
    return Fernet.generate_key().decode()


class Keys(BaseModel):
    """The service's own secrets.

    `jwt_key` signs tokens, `link_key` links; `master_key` encrypts the accounts' profile keys.
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
    """All that can be set. Durations are in seconds, sizes in bytes.

    `data` is the folder of keys, audit log and counts of calls. `database` is a SQLAlchemy URL,
    `exports` an fsspec URL; by default both are in `data`. `rows_per_file` is the size of an
    exported page.
    `phase_seconds` is the least time of each phase of a rerun, so that it can be watched.
    `approve_after` is the time after which a run that is ready for review is approved, None for
    never. Files above `upload_at_once` are processed in the background. Messages of campaigns
    whose AI configuration leaves that open are written by `chat`, by default from the template.
    `envelope` is what lies around answers, for rehearsals of a client: see
    `sandbox.middleware.envelope`.
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
    envelope: Envelope = "object"

    @property
    def database_url(self) -> str:
        """Return the SQLAlchemy URL of the database."""
        file = URL.create("sqlite", database=str(self.data / "sandbox.db"))
        return self.database or file.render_as_string()

    @property
    def exports_url(self) -> str:
        """Return the fsspec URL of the exported pages."""
        return self.exports or str(self.data / "exports")

    @property
    def audit_file(self) -> Path:
        """Return the path of the audit log."""
        return self.data / "audit.jsonl"

    @property
    def pages_calls(self) -> Path:
        """Return the folder of the counts of calls that have counted pages."""
        return self.data / "pages-calls"

    @property
    def keys(self) -> Keys:
        """Return the keys in the data folder, made on first use, readable by their owner only."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.data / "keys.json"
        try:
            with open(file, "x", opener=open_private) as new:
                new.write(Keys().model_dump_json())
        except FileExistsError:
            pass
        return Keys.model_validate_json(file.read_text())


def open_private(path: str, flags: int) -> int:
    """Open a file that only its owner may read; an `opener` of `open`."""
    return os.open(path, flags, mode=0o600)
