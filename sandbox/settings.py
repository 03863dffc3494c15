"""How a sandbox is set up, and the secrets it keeps beside its data."""

import os
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe

from pydantic import BaseModel, Field

DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Settings:
    """`data` holds everything. Durations are seconds, `rows_per_file` the size of an export's page.

    `phase_seconds` is the least time each phase of a rerun takes, so that people can watch;
    `approve_after` approves a run that long after it became ready for review.
    """

    data: Path
    rows_per_file: int = 50_000
    phase_seconds: float = 0.0
    approve_after: float | None = None
    access_token_seconds: int = 14 * DAY
    refresh_token_seconds: int = 15 * DAY
    link_seconds: int = 60 * 60

    @property
    def exports(self) -> Path:
        return self.data / "exports"


class Keys(BaseModel):
    """The service's own secrets: what it signs tokens and links with, and its API code."""

    api_code: str = Field(default_factory=lambda: token_urlsafe(24), repr=False)
    jwt_key: str = Field(default_factory=lambda: token_urlsafe(48), repr=False)
    link_key: str = Field(default_factory=lambda: token_urlsafe(48), repr=False)


def load_keys(data: Path) -> Keys:
    """The keys of a data folder, made on first use and readable by their owner only."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = data / "keys.json"
    try:
        with open(file, "x", opener=_private) as new:
            new.write(Keys().model_dump_json())
    except FileExistsError:
        pass
    return Keys.model_validate_json(file.read_text())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
