"""The images' Dockerfile, and what `.dockerignore` lets into their build."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deployments/Dockerfile"


@dataclass(frozen=True)
class Instruction:
    stage: str
    name: str
    text: str


def instructions() -> list[Instruction]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    stage, found = "", []
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.split()[-1]
        found.append(Instruction(stage, name, " ".join(rest.split())))
    return found


def of(stage: str, name: str) -> list[str]:
    return [one.text for one in instructions() if (one.stage, one.name) == (stage, name)]


def context(folder: Path) -> Path:
    """What `.dockerignore` lets into the build."""
    hidden, *shown, caches = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"
    ]
    assert (hidden, caches) == ("*", "**/__pycache__")
    for pattern in shown:
        for path in ROOT.glob(pattern.removeprefix("!")):
            copy(path, folder / path.relative_to(ROOT))
    return folder


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
