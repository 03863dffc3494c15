"""The audit log: one JSON line per call, written before its answer leaves, and per ended job."""

import json
from contextlib import suppress
from os import SEEK_END
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nudgescribe.contract import CLIENT_IP_HEADER
from sandbox.context import Caller
from sandbox.data.models import now
from sandbox.settings import open_private

AUDITED = ("/v1/", "/exports/")
LAST_BYTES = 64 * 1024


def write_entry(
    file: Path,
    *,
    user_id: str | None,
    account_id: str | None,
    ip: str | None,
    endpoint: str,
    job_uid: str | None,
    status: int | str,
) -> None:
    """Write what has been done, now, and by whom; `status` is that of the answer or of the job.

    A file and not a table: a call must not wait for the database's writer to be written down.
    """
    entry = {
        "time": now().isoformat(),
        "user_id": user_id,
        "account_id": account_id,
        "ip": ip,
        "endpoint": endpoint,
        "job_uid": job_uid,
        "status": status,
    }
    with open(file, "ab", opener=open_private) as log:
        log.write(json.dumps(entry).encode() + b"\n")


def read_newest(file: Path, most: int) -> list[dict[str, Any]]:
    """Return the newest entries, the newest first, as far as they are in the file's last bytes."""
    if not file.exists():
        return []
    with file.open("rb") as log:
        log.seek(-min(LAST_BYTES, file.stat().st_size), SEEK_END)
        lines = log.read().splitlines()
    entries: list[dict[str, Any]] = []
    for line in reversed(lines[-most:]):
        with suppress(ValueError):  # the first one may be cut
            entries.append(json.loads(line))
    return entries


def header(headers: Headers, name: str) -> str | None:
    """Return a header's value, None if it is missing; other values sent with it are kept, too, so
    that nothing is judged or written down by the first of several.
    """
    return ", ".join(dict.fromkeys(headers.getlist(name))) if name in headers else None


class AuditLog:
    """Middleware that writes who called what, from where, and the answer's status.

    A call that is worked in the background has its job's id. Links into an object store are
    followed there, and not seen here.
    """

    def __init__(self, app: ASGIApp, file: Path) -> None:
        self._app = app
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(AUDITED):
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
        state = scope.get("state", {})
        caller: Caller | None = state.get("caller")
        is_endpoint = "route" in scope
        write_entry(
            self._file,
            user_id=caller.user_id if caller else None,
            account_id=caller.account_id if caller else None,
            ip=header(Headers(scope=scope), CLIENT_IP_HEADER),
            endpoint=f"{scope['method']} {scope['path']}" if is_endpoint else "unknown",
            job_uid=state.get("job_uid"),
            status=status,
        )
