"""Links of the documents, and the site that is built of them."""

import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from docs import build as site

ROOT = Path(__file__).parents[1]
MADE = {"build", "lake"}
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(
        document
        for room in ROOT.glob("[a-z]*/")
        if room.name not in MADE
        for document in room.rglob("*.md")
    ),
]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found: set[str] = set()
    tokens = MarkdownIt("commonmark").enable("table").parse(document.read_text())
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            text = "".join(each.content for each in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: str(each.relative_to(ROOT)))
def test_link_of_a_document_leads_to_a_file_and_a_heading(document: Path) -> None:
    for link in site.links(document.read_text()):
        if site.is_relative(link) or link.startswith("#"):
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


class Links(HTMLParser):
    """What a page of the site links to, and what a browser loads for it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif "src" in values:
            self.loaded.append(values["src"])
        elif tag == "link":
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    site.stage(folder)
    assert site.build(folder) == 0
    return folder / "html"


def test_site_has_each_guide_and_no_page_without_a_place_in_its_navigation(html: Path) -> None:
    listed = [*site.pages()]
    assert len(listed) == len({*listed})
    assert {f"docs/{each.name}" for each in ROOT.glob("docs/*.md")} < {*listed}
    for page in listed:
        name = "index.html" if page == "README.md" else page.replace("README.md", "index.md")
        assert (html / name).with_suffix(".html").is_file(), page


def test_page_of_the_site_leads_nowhere_that_is_not_there_and_loads_nothing_from_elsewhere(
    html: Path,
) -> None:
    for page in html.rglob("*.html"):
        if page.name == "404.html":
            continue  # its addresses are those of the site's root, wherever it is
        read = Links(page)
        assert "```" not in page.read_text(), page
        for link in (*read.links, *read.loaded):
            url = urlsplit(link)
            if not url.scheme and url.path:
                assert (page.parent / unquote(url.path)).exists(), f"{page}: {link}"
        assert not [link for link in read.loaded if urlsplit(link).netloc], page


@pytest.mark.parametrize("link", ["docs/missing.md", "docs/lake.md#missing", "#missing"])
def test_broken_link_fails_the_site(tmp_path: Path, link: str) -> None:
    for page in site.pages():
        (copy := tmp_path / "root" / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, copy)
    with (tmp_path / "root/README.md").open("a") as readme:
        readme.write(f"\n[a page]({link})\n")
    site.stage(tmp_path / "site", tmp_path / "root")
    assert site.build(tmp_path / "site") == 1
