"""The audit log: one JSON line a call, written before its answer leaves."""

import json
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import CLIENT_IP_HEADER
from sandbox.data.models import now
from sandbox.settings import private

API = "/v1/"


class AuditLog:
    """Who called what, from where, when, and how it was answered; nothing a customer is or has.

    A file and not a table: a call must not wait for the database's writer to be written down.
    """

    def __init__(self, app: ASGIApp, file: Path) -> None:
        self._app = app
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return

        async def audited(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._write(scope, message["status"])
            await send(message)

        await self._app(scope, receive, audited)

    def _write(self, scope: Scope, status: int) -> None:
        caller: Mapping[str, str] = scope.get("state", {}).get("caller", {})
        known = "route" in scope
        entry = {
            "time": now().isoformat(),
            "user_id": caller.get("user_id"),
            "account_id": caller.get("account_id"),
            "ip": _ip(Headers(scope=scope).get(CLIENT_IP_HEADER, "")),
            "endpoint": f"{scope['method']} {scope['path']}" if known else "unknown",
            "status": status,
        }
        with open(self._file, "ab", opener=private) as log:
            log.write(json.dumps(entry).encode() + b"\n")


def _ip(text: str) -> str | None:
    """The address in its own form; a header can hold anything."""
    with suppress(ValueError):
        return str(ip_address(text.strip()))
    return None
