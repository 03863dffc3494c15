"""Where blocks are documented: in files of this package, or where the project is published.

Prefect keeps links of http and https alone. So it is given links only if a variable says where
README and docs are published; otherwise a block's description names the file.
"""

from os import environ
from pathlib import Path
from sysconfig import get_path
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from prefect.blocks.core import Block
from prefect.client.schemas.objects import BlockType
from pydantic import FileUrl, HttpUrl

DOCS_URL = "NUDGEFLOW_DOCS_URL"
"""The variable that says where README and docs are published."""
INSTALLED = "share/doc/nudgeflow"
_REPOSITORY = Path(__file__).parents[1]
_IS_CHECKOUT = (_REPOSITORY / "docs/recover.md").is_file()
_FOLDER = _REPOSITORY if _IS_CHECKOUT else Path(get_path("data"), INSTALLED)


def documentation_url(section: str) -> Any:
    """Return the URL of the README's section on a block, in the file that is installed."""
    return FileUrl(f"{(_FOLDER / 'README.md').as_uri()}#{section}")


LOGO_URL: Any = FileUrl((_FOLDER / "docs/img/logo.png").as_uri())


def _published(url: HttpUrl | FileUrl | None) -> HttpUrl | None:
    """Return where a file of the package is published, None if nobody has said; other URLs stay."""
    if not isinstance(url, FileUrl):
        return url
    base, (path, section) = environ.get(DOCS_URL, "").rstrip("/"), _split(url)
    if not base:
        return None
    return HttpUrl(f"{base}/#{section}" if section else f"{base}/{path.removeprefix('docs/')}")


def _with_file(kind: type[Block]) -> str | None:
    """Return a block's description with the file that documents it."""
    said, url = kind.get_description(), kind._documentation_url  # pyright: ignore[reportPrivateUsage]
    if not isinstance(url, FileUrl):
        return said
    path, section = _split(url)
    title = section.replace("-", " ").capitalize()
    return f"{said} See *{title}* in {path}, which is installed in {INSTALLED}."


def _split(url: FileUrl) -> tuple[str, str]:
    """Return a file's path in the package, and the section of it."""
    parts = urlsplit(str(url))
    return parts.path.removeprefix(f"{urlsplit(_FOLDER.as_uri()).path}/"), parts.fragment


class Documented:
    """Gives a block a logo, and a link to its documentation.

    No block itself: Prefect would offer it in its catalog.
    """

    _logo_url: ClassVar[Any] = LOGO_URL
    _documentation_url: ClassVar[Any] = None

    @classmethod
    def _to_block_type(cls) -> BlockType:
        """Return the block's type as Prefect takes it: with links that can be followed, or none."""
        kind, link = cast("type[Block]", cls), _published(cls._documentation_url)
        return BlockType(
            slug=kind.get_block_type_slug(),
            name=kind.get_block_type_name(),
            logo_url=_published(cls._logo_url),
            documentation_url=link,
            description=kind.get_description() if link else _with_file(kind),
            code_example=kind.get_code_example(),
        )
