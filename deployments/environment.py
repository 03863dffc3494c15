"""Prefect kept to this machine. Call before Prefect is imported: it reads its settings then."""

import os
from pathlib import Path


def keep_prefect_at(home: Path, **settings: str) -> None:
    """Sets Prefect's environment for this process and its children.

    A profile or variable of the user's could point at a real Prefect server; those are set aside.
    """
    home.mkdir(parents=True, exist_ok=True)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update(
        {
            "PREFECT_HOME": str(home.resolve()),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
            # The first start makes the database and takes longer than Prefect's own limit.
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "DO_NOT_TRACK": "1",
            **settings,
        }
    )
