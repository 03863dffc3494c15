"""The audit log: one JSON line per call, written before its answer leaves."""

import json
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import CLIENT_IP_HEADER
from sandbox.context import Caller
from sandbox.data.models import now
from sandbox.settings import open_private

API = "/v1/"


class AuditLog:
    """Middleware that writes who called what, from where and when, and the answer's status.

    A file and not a table: a call must not wait for the database's writer to be written down.
    """

    def __init__(self, app: ASGIApp, file: Path) -> None:
        self._app = app
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return

        is_written = False

        async def audited(message: Message) -> None:
            nonlocal is_written
            if message["type"] == "http.response.start":
                is_written = True
                self._write(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, audited)
        except Exception:  # `FailureAnswers` answers it
            if not is_written:
                self._write(scope, 500)
            raise

    def _write(self, scope: Scope, status: int) -> None:
        caller: Caller | None = scope.get("state", {}).get("caller")
        is_endpoint = "route" in scope
        entry = {
            "time": now().isoformat(),
            "user_id": caller.user_id if caller else None,
            "account_id": caller.account_id if caller else None,
            "ip": Headers(scope=scope).get(CLIENT_IP_HEADER),
            "endpoint": f"{scope['method']} {scope['path']}" if is_endpoint else "unknown",
            "status": status,
        }
        with open(self._file, "ab", opener=open_private) as log:
            log.write(json.dumps(entry).encode() + b"\n")
