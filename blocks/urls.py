"""URLs that secrets are sent to, or that people follow: https, or this machine."""

from ipaddress import ip_address
from typing import Annotated

import httpx
from pydantic import AfterValidator


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
    """Return a URL of http or https, without credentials. Raises ValueError, which never holds the
    URL: it may hold a password.
    """
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("is no URL") from None
    if not parts.host or parts.scheme not in ("http", "https"):
        raise ValueError("is no URL that begins with https://")
    if parts.userinfo:
        raise ValueError("holds a user or a password, which everybody sees there: leave them out")
    return url


def check_base_url(url: str) -> str:
    """Return the URL of an API, without a slash at its end. Raises ValueError."""
    if {"?", "#"} & {*check_url(url)}:
        raise ValueError("must be the API's base URL: leave out what follows a ? or a #")
    return url.rstrip("/")


def _secure(url: str) -> str:
    if not is_secure(checked := check_base_url(url)):
        raise ValueError("must begin with https://; http:// is for this machine alone")
    return checked


SecureUrl = Annotated[str, AfterValidator(_secure)]
"""The base URL of an API that secrets may be sent to."""
