"""Keep Prefect on this machine. Import before Prefect, which reads its settings when imported."""

import os
import socket
from contextlib import closing
from pathlib import Path


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def keep_prefect_at(home: Path, port: int, **settings: str) -> None:
    """Set Prefect's variables for this process and its children: its data goes to `home`, its
    server is on `port` of this machine.

    A profile, a variable or an .env of the user's could point at a real Prefect server, so they are
    ignored.
    """
    home.mkdir(parents=True, exist_ok=True)
    for variable in [each for each in os.environ if each.startswith("PREFECT_")]:
        del os.environ[variable]
    os.environ.update(
        {
            "PREFECT_HOME": str(home.resolve()),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **settings,
        }
    )
