"""Where the blocks' logo and documentation are found; Prefect's UI shows both."""

from pydantic import HttpUrl

PROJECT_URL = "https://nudgeflow.example"
"""Where the README and the docs folder are published; set it to your own place."""
LOGO_URL = HttpUrl(f"{PROJECT_URL}/img/logo.png")


def documentation(section: str) -> HttpUrl:
    """The section of the README that explains a block."""
    return HttpUrl(f"{PROJECT_URL}/#{section}")
