"""The audit log: one JSON line a call, written before its answer leaves."""

import json
import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import CLIENT_IP_HEADER
from sandbox.settings import private
from sandbox.store import now

API = "/v1/"


class AuditLog:
    """Who called what, from where, when, and how it was answered; nothing a customer is or has.

    A file and not a table: a call must not wait for the database's writer to be written down.
    """

    def __init__(self, app: ASGIApp, file: Path) -> None:
        self._app = app
        self._file = private(str(file), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

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
        claims = scope.get("state", {}).get("claims")
        known = "route" in scope
        entry = {
            "time": now().isoformat(),
            "user_id": claims.user_id if claims else None,
            "account_id": claims.account_id if claims else None,
            "ip": _ip(Headers(scope=scope).get(CLIENT_IP_HEADER, "")),
            "endpoint": f"{scope['method']} {scope['path']}" if known else "unknown",
            "status": status,
        }
        os.write(self._file, json.dumps(entry).encode() + b"\n")


def _ip(text: str) -> str | None:
    """The address in its own form; a header can hold anything."""
    with suppress(ValueError):
        return str(ip_address(text.strip()))
    return None
