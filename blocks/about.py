"""Where the blocks' logo and documentation are found; Prefect's UI shows both."""

from pydantic import HttpUrl

PROJECT_URL = "https://nudgeflow.dev"
LOGO_URL = HttpUrl(f"{PROJECT_URL}/img/logo.png")


def documentation(section: str) -> HttpUrl:
    """The section of the README that explains a block."""
    return HttpUrl(f"{PROJECT_URL}/#{section}")
