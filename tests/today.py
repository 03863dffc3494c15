"""What version 0.1.0 left behind (`tests/data/today`), with the ids of another campaign."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

TODAY = Path(__file__).parent / "data/today"

Kind = Literal["open", "suspended", "ended"]


def accepted(kind: Kind) -> Path:
    """The customers that the refresh accepted and uploaded."""
    (file,) = (TODAY / kind / "lake/staging").glob("*/accepted.parquet")
    return file


def told(kind: Kind, name: str, ids: Mapping[str, str]) -> Any:
    """One of the JSON files beside a lake, with these ids in place of its own."""
    return json.loads(_rewriting(kind, ids)((TODAY / kind / f"{name}.json").read_text()))


def lay(kind: Kind, root: Path, ids: Mapping[str, str]) -> None:
    """Copies a lake to `root`, with these ids, named as in its ids.json, in place of its own.

    They are in JSON and in paths; what else there is holds customers only.
    """
    rewritten, source = _rewriting(kind, ids), TODAY / kind / "lake"
    for file in source.rglob("*"):
        if file.is_file():
            target = root / rewritten(str(file.relative_to(source)))
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".json":
                target.write_text(rewritten(file.read_text()))
            else:
                target.write_bytes(file.read_bytes())


def _rewriting(kind: Kind, ids: Mapping[str, str]) -> Callable[[str], str]:
    before = json.loads((TODAY / kind / "ids.json").read_text())
    new = {before[name]: value for name, value in ids.items()}
    return lambda text: re.sub("|".join(new), lambda found: new[found[0]], text)
