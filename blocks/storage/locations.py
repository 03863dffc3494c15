"""Paths and URLs that people write into blocks: what can be worked with, and holds no secret."""

import re

from blocks.urls import holds_secret, split_chain

# Prefect does not encrypt these fields, and they are shown in logs and in the UI.
_REFUSED = "holds a password, a key or a token: put it into storage_options"
_OF_DELTA = re.compile(r"[\w!$&'()+,./:;@~-]*", re.ASCII)


def check_location(location: str) -> str:
    """Return a path or fsspec URL that means the same in any process.

    Raises ValueError, whose text does not repeat the location: it may hold a secret.
    """
    if holds_secret(location):
        raise ValueError(_REFUSED)
    if location != location.strip() or not location.isprintable():
        raise ValueError("begins or ends with a blank, or holds a character that does not show")
    if re.search(r"(^|::)\w*[A-Z]\w*(://|::)", location):
        raise ValueError("begins with a protocol in capitals: write it small, such as file://")
    *_, last = split_chain(location)
    protocol, separator, rest = last.partition("://")
    if not separator or protocol in ("file", "local"):
        path = rest if separator else re.sub("^(file|local):", "", last)
        if not path.startswith("/"):
            raise ValueError(
                "must be an absolute path, such as /data/crm, or a URL, such as s3://data/crm: "
                "flow runs work in folders of their own"
            )
    elif not rest.strip("/"):
        raise ValueError(f"names nothing behind {protocol}://")
    return location


def check_root(root: str) -> str:
    """Return a folder's path or URL, all of whose characters mean themselves.

    Raises ValueError, as `check_location` does.
    """
    check_location(root)
    if match := re.search(r"[*?\[\]{}]|::", root):
        raise ValueError(f"holds {match[0]}, which has a special meaning in paths")
    _, separator, path = root.partition("://")
    names = path.rstrip("/").split("/") if separator else []
    if {".", ".."} & {*names} or "" in names[1:]:
        raise ValueError("has an empty name, . or .. between its slashes")
    return root


def check_delta_root(root: str) -> str:
    """Return a root that stands in the URLs of a Delta table as it is. Raises ValueError."""
    if not _OF_DELTA.fullmatch(root):
        raise ValueError(
            "holds a character that a Delta table cannot have in its URL: use ASCII letters, "
            "digits, dots, hyphens and underscores, or another format than delta"
        )
    return root


def database_path(dialect: str, database: str | None) -> str | None:
    """Return the path of a database that is a file, ":memory:" if there is none; None for a
    server's.
    """
    if dialect not in ("sqlite", "duckdb"):
        return None
    return (database or "").removeprefix("file:").partition("?")[0] or ":memory:"


def check_database(dialect: str, database: str | None) -> None:
    """Check the path of a database that is a file. Raises ValueError."""
    path = database_path(dialect, database)
    if path and not path.startswith(("/", ":", "md:")):
        raise ValueError(
            f"must name the file by an absolute path, such as {dialect}:////data/crm.db: flow runs "
            "work in folders of their own"
        )
