"""Secrets that a block only refers to.

What begins with `env:`, `file:` or `prefect:` says where the secret is: in an environment variable,
a file or a Secret block of Prefect. It is read whenever a client is made of it, on the machine that
makes it; the block itself is saved, loaded and sent with the reference. Behind `literal:` stands a
secret that itself begins so. What begins with `file://` is a URL, as file systems take it in their
options, and no reference.
"""

import re
from collections.abc import Callable
from os import environ
from pathlib import Path
from typing import Any, cast

from prefect.blocks.system import Secret
from pydantic import SecretStr

from blocks.saved import BlockNotFound, describe_saved, load_by_name
from nudgescribe.errors import NudgeflowError

HINT = "Or a reference to it: env:NAME, file:/PATH or prefect:BLOCK."
"""Ends the description of each secret in forms."""


class SecretUnusable(NudgeflowError):
    """A secret that a block refers to is not there, or cannot be used."""

    advice = (
        "Put it where flow runs and task runs find it, or correct the block, then retry. A secret "
        "that itself begins with env:, file: or prefect: is written with literal: before it."
    )


def is_reference(text: str) -> bool:
    """Return whether a text says where a secret is, and is not the secret itself."""
    kind, colon, place = text.partition(":")
    return bool(colon) and kind in _SOURCES and not (kind == "file" and place.startswith("//"))


def read_secret(secret: SecretStr | str, what: str) -> str:
    """Return a secret, read from where it is if it is a reference.

    Raises SecretUnusable, which says what is missing of `what`, and never its value.
    """
    text = secret if isinstance(secret, str) else secret.get_secret_value()
    if not is_reference(text):
        return text
    kind, _, place = text.partition(":")
    form, example, read = _SOURCES[kind]
    if not re.fullmatch(form, place, re.DOTALL):
        raise SecretUnusable(f"{what}: what begins with {kind}: must be {example}.")
    try:
        found = read(place)
    except _Missing as missing:
        raise SecretUnusable(f"{what}: {missing}.") from None
    if not found:
        raise SecretUnusable(f"{what}: {kind}:{place} is empty.")
    return found


def read_secrets(values: Any, what: str) -> Any:
    """Return a mapping, or a list, with each text in it read as `read_secret` does.

    Raises SecretUnusable.
    """
    match values:
        case str():
            return read_secret(values, what)
        case dict():
            named = cast("dict[str, Any]", values).items()
            return {name: read_secrets(each, f"{what}.{name}") for name, each in named}
        case list():
            return [read_secrets(each, what) for each in cast("list[Any]", values)]
        case _:
            return values


class _Missing(Exception):
    """What is not there."""


def _variable(name: str) -> str:
    if name not in environ:
        raise _Missing(f"there is no environment variable {name}")
    return environ[name]


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise _Missing(f"the file {path} cannot be read: {type(error).__name__}") from None


def _saved(name: str) -> str:
    try:
        block = load_by_name(name, Secret)
    except BlockNotFound:
        # A secret may itself begin with prefect:, so the name may be part of one.
        problem = "Prefect has no Secret block of the name behind prefect:"
        raise _Missing(f"{problem}. {describe_saved(Secret)}".rstrip(".")) from None
    # Its `get` takes a password of digits for a number.
    value: object = cast("Secret[Any]", block).value.get_secret_value()
    if not isinstance(value, str):
        raise _Missing(f"the Secret block {name} holds no text")
    return value


_SOURCES: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "env": (r"[A-Z_][A-Z0-9_]*", "env: and a variable's name in capitals", _variable),
    "file": (r"/[^\0\r\n]+", "file: and an absolute path", _content),
    "prefect": (r"\w[\w -]*", "prefect: and the name of a Secret block", _saved),
    "literal": (r".*", "literal: and the secret", str),
}
"""How secrets are found: the form of a place, which is shown only if it has it; how it is told to
people; what reads it.
"""
