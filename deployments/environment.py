"""Keep Prefect on this machine. Import before Prefect, which reads its settings when imported."""

import os
from pathlib import Path


def keep_prefect_at(home: Path, **settings: str) -> None:
    """Set Prefect's variables for this process and its children; its data goes to `home`.

    A profile or variable of the user's could point at a real Prefect server, so they are ignored.
    """
    home.mkdir(parents=True, exist_ok=True)
    for variable in [each for each in os.environ if each.startswith("PREFECT_")]:
        del os.environ[variable]
    os.environ.update(
        {
            "PREFECT_HOME": str(home.resolve()),
            "PREFECT_API_URL": "",  # an .env here may have one
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
            # The first start creates the database, which takes longer than Prefect's own limit.
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "DO_NOT_TRACK": "1",
            **settings,
        }
    )
