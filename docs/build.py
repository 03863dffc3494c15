"""Build the documents as a site: `make site`.

Pages keep the places that they have in the repository, so that a link works in both. What else they
link to goes along as it is.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "docs/zensical.toml"
BUILD = ROOT / "build/site"


def pages(nav: Any = None) -> Iterator[str]:
    """Yield the paths of the site's pages, in the order of its navigation."""
    for entry in nav or tomllib.loads(CONFIG.read_text())["project"]["nav"]:
        for page in entry.values():
            yield from [page] if isinstance(page, str) else pages(page)


def links(text: str) -> Iterator[str]:
    """Yield where a document's links and pictures lead to, as they stand there."""
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        for token in block.children or ():
            target = token.attrGet("href") or token.attrGet("src")
            if isinstance(target, str):
                yield target


def is_relative(link: str) -> bool:
    """Return whether a link leads to a file beside its document."""
    return not re.match(r"[a-z]+:|#", link)


def stage(folder: Path, root: Path = ROOT) -> None:
    """Write what the site is made of: its configuration, its pages, the files they link to."""
    folder.mkdir(parents=True)
    shutil.copy(CONFIG, folder)
    for page in pages():
        text = (root / page).read_text(encoding="utf-8")
        (target := folder / "pages" / page).parent.mkdir(parents=True, exist_ok=True)
        # A second word after a block's language, which tests find it by, ends the block here.
        target.write_text(re.sub(r"^(```\w+) .*$", r"\1", text, flags=re.MULTILINE))
        for link in filter(is_relative, links(text)):
            file = (root / page).parent / link.partition("#")[0]
            if file.is_file() and file.suffix != ".md":
                copy = (target.parent / link.partition("#")[0]).resolve()
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)


def build(folder: Path = BUILD) -> int:
    """Build the site into `html` in a folder; a link to a page or heading that is missing fails."""
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=folder, env={**os.environ, "NO_COLOR": "1"}).returncode


if __name__ == "__main__":
    shutil.rmtree(BUILD, ignore_errors=True)
    stage(BUILD)
    if code := build():
        sys.exit(code)
    print(f"The site is in {(BUILD / 'html/index.html').relative_to(ROOT)}.")
