"""People read one word for one thing, in forms, documents, pages, logs and errors."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from prefect.utilities.callables import parameter_schema

from deployments.server import block_types

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "blocks", "nudgescribe", "deployments")
# Only what cannot be right in any context: "the lake is kept" and "an archived object" can.
UNWANTED = {
    r"quarantined": "a row is rejected; the quarantine is a place",
    r"\brows? (?:is|are|was|were) refused|\brefused rows?\b": "a row is rejected",
    r"\b(?:list|call)s? (?:is|are|was|were) rejected|\brejected (?:list|call)s?\b": "it is refused",
    r"\bsegments? (?:is|are|was|were)? ?(?:kept|gone|archived)\b"
    r"|\b(?:kept|archived|known) segments?\b": "a segment is matched, new or orphaned",
    r"\bnewcomers?\b|(?<!no )\bcustomers (?:came|went|joined|left)\b": "they are added or removed",
    r"\banother message\b": "a customer's message changed",
    r"\bwaits? for its review\b|\bin review\b|\bawaits review\b": "it is awaiting review",
    r"\b[Mm]end\b|\bare well\b|\bThey lie in\b|\bnot heard of\b|\buntil now\b": "plain English",
}


def prose(markdown: str) -> str:
    """A document without its code."""
    return re.sub(r"```.*?```|`[^`]*`", "", markdown, flags=re.DOTALL)


def described(schema: Any) -> Iterator[str]:
    """The titles and descriptions in a JSON schema."""
    if isinstance(schema, list):
        for each in cast(list[Any], schema):
            yield from described(each)
    elif isinstance(schema, dict):
        for name, value in cast(dict[str, Any], schema).items():
            if name in ("title", "description") and isinstance(value, str):
                yield value
            else:
                yield from described(value)


def forms() -> Iterator[tuple[str, str]]:
    for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        module, _, name = each["entrypoint"].rpartition(".")
        flow = getattr(import_module(module), name)
        schema = parameter_schema(flow.fn).model_dump()
        texts = each["description"], flow.description, *described(schema)
        yield f"the form of {each['name']}", "\n".join(texts)
    for block in block_types():
        texts = block.get_description() or "", *described(block.model_json_schema())
        yield f"the form of {block.__name__}", "\n".join(texts)


def files(*patterns: str) -> Iterator[tuple[str, str]]:
    for file in (file for pattern in patterns for file in ROOT.glob(pattern)):
        yield str(file.relative_to(ROOT)), prose(file.read_text())


def strings() -> Iterator[tuple[str, str]]:
    """What the packages may write, log or raise; a name has no space."""
    for package in PACKAGES:
        for file in ROOT.glob(f"{package}/**/*.py"):
            nodes = ast.walk(ast.parse(file.read_text()))
            texts = (str(node.value) for node in nodes if isinstance(node, ast.Constant))
            yield str(file.relative_to(ROOT)), "\n".join(text for text in texts if " " in text)


SOURCES = {
    "forms": forms,
    "documents": lambda: files("README.md", "docs/*.md", "deployments/templates/*.md"),
    "pages": lambda: files("sandbox/templates/*.html"),
    "strings": strings,
}


@pytest.mark.parametrize("source", SOURCES)
def test_one_word_is_used_for_one_thing(source: str) -> None:
    found = [
        f"{name}: '{match[0]}': {why}"
        for name, text in SOURCES[source]()
        for unwanted, why in UNWANTED.items()
        for match in re.finditer(unwanted, " ".join(text.split()))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "51 rows were refused.",
        "The list was rejected.",
        "The segments kept, and 4 new ones.",
        "0 customers came, 51 went.",
        "1,305 have another message now.",
        "run 2 waits for its review",
        "Mend these rows in the CRM.",
    ],
)
def test_former_words_are_recognised(text: str) -> None:
    assert any(re.search(unwanted, text) for unwanted in UNWANTED)
