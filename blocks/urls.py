"""URLs that secrets are sent to, or that people follow: https, or this machine."""

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import unquote

import httpx
from pydantic import AfterValidator

_SECRET_PARAMETER = re.compile(
    r".*(token|secret|password|passwd|passphrase|passcode|pwd|signature|credentials?|bearer)"
    r"|.*(authorization|session-?id)|key"
    r"|.*(access|account|api|auth|functions|private|secret|shared|subscription)-?key(-?id)?"
    r"|(.*-)?(auth|hmac|jwt|otp|pass|pin|pw|sas|sig)"
)
_KEY_LENGTH = 16
"""Characters from which a `code` is a key, such as Azure's; a country's is shorter."""
_IPV6 = re.compile(r"\[[\da-fA-F:.]*\]")
_CHAIN = re.compile(r"::(?![^\[\]]*\])")
"""Two colons in brackets belong to an address of IPv6."""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_secure(url: str) -> bool:
    """Return whether what is sent to a valid URL cannot be read on the way."""
    parts = httpx.URL(url)
    return parts.scheme == "https" or is_loopback(parts.host)


def check_url(url: str) -> str:
    """Return a URL of http or https, without credentials in any part of it. Raises ValueError,
    which never holds the URL: it may hold a password.
    """
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("is no URL") from None
    if not parts.host or parts.scheme not in ("http", "https"):
        raise ValueError("is no URL that begins with https://")
    if parts.userinfo:
        raise ValueError("holds a user or a password, which everybody sees there: leave them out")
    if holds_secret(url):
        raise ValueError("holds a key or a token, which everybody sees there: leave it out")
    return url


def check_base_url(url: str, version: str = "") -> str:
    """Return the URL of an API, without a slash at its end. Raises ValueError, with the right one
    if it can be told without a secret: without parameters, and without the API's `version` and what
    follows it.
    """
    before, *parameters = re.split("[?#]", url, maxsplit=1)
    is_password = "@" in "".join(parameters)
    given = check_url(url if is_password else before).rstrip("/")
    right = re.split(rf"(?i)(?<!/)/{version}(?:/|$)", given, maxsplit=1)[0] if version else given
    if parameters:
        shown = "" if is_password else f": {right}"
        raise ValueError(f"must be the API's base URL, without ? or # and what follows{shown}")
    if right != given:
        raise ValueError(f"is the URL without /{version}, which each call adds: {right}")
    return given


def _secure(url: str) -> str:
    if not is_secure(checked := check_base_url(url)):
        raise ValueError("must begin with https://; http:// is for this machine alone")
    return checked


SecureUrl = Annotated[str, AfterValidator(_secure)]
"""The base URL of an API that secrets may be sent to."""


def split_chain(location: str) -> list[str]:
    """Return the URLs of a chain, which is fsspec's way of writing a file in an archive."""
    return _CHAIN.split(location)


def holds_secret(location: str) -> bool:
    """Return whether a URL, or a chain of them, has a password before a host, or a secret among its
    parameters.
    """
    return any(map(_part_holds_secret, split_chain(location)))


def _part_holds_secret(url: str) -> bool:
    protocol, separator, rest = url.partition("://")
    if not separator:
        return False
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, _ = host.rpartition("@")
    is_http = protocol.lower() in ("http", "https")
    if at and (":" in user or is_http or protocol.lower() in ("s3", "s3a")):
        return True
    # A password with a slash, ? or #: what follows the colon is no port, or no path follows it.
    behind = rest.removeprefix(host)
    name, colon, port = _IPV6.sub("ipv6", host.rpartition("@")[2]).partition(":")
    is_port = re.fullmatch(r"\d*", port) and not (colon and behind[:1] in ("?", "#"))
    if "@" in behind and not is_port and name != "arn":
        return True
    # Other stores have names with semicolons in them.
    _, *query = re.split("[?#;]" if is_http else "[?#]", rest, maxsplit=1)
    parameters = (each.partition("=") for each in re.split("[?#&;]", "".join(query)))
    return any(_is_secret(name, value) for name, _, value in parameters if value)


def _is_secret(parameter: str, value: str) -> bool:
    name = re.sub("[_.]", "-", unquote(parameter).lower())
    if name == "code":
        return len(value) >= _KEY_LENGTH
    return _SECRET_PARAMETER.fullmatch(name) is not None
