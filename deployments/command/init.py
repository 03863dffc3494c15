"""Write a new project: the files that a person goes on with."""

from collections.abc import Iterator
from pathlib import Path

from deployments.project import DEPLOYMENTS, TEMPLATES, VARIABLES

FILES = {
    DEPLOYMENTS.name: DEPLOYMENTS.name,
    "env": VARIABLES.name,
    "gitignore": ".gitignore",
    "README.md": "README.md",
}
"""Templates, and what they are called in a project."""

PRIVATE = 0o600
"""Of .env, which will hold secrets."""


def write_project(folder: Path) -> Iterator[str]:
    """Write the files that are not there yet; yield a line for each."""
    for template, name in FILES.items():
        target = folder / name
        if target.exists():
            yield f"{name}: is there, not changed"
            continue
        if name == VARIABLES.name:
            target.touch(PRIVATE)
        target.write_text((TEMPLATES / template).read_text(encoding="utf-8"), encoding="utf-8")
        yield f"{name}: written"
