"""An export's pages straight from disk and the API around them, at next to no CPU.

python -m benchmarks.pages_server FOLDER ROWS [--wan]

Prints its URL and ends when its standard input does.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

from nudgescribe import contract

WORKSPACE, CAMPAIGN, GROUP = "workspace-1", "campaign-1", "group-1"
LATENCY = 0.12
"""Seconds before the first byte of a response, with --wan."""
PACE = 12e6
"""Bytes a second of a connection, with --wan."""
AT_ONCE = 256 * 1024


def page_file(folder: Path, number: int) -> Path:
    """Return the path of a page's file."""
    return folder / f"page-{number:05d}.csv"


def answers(rows: int, pages: int) -> dict[str, Any]:
    """Return the API's answers by path: one campaign with one run, published for one group."""
    now = datetime.now(UTC).isoformat()
    run = {"status": "Published", "customer_group_id": GROUP}
    campaign = {"campaign_id": CAMPAIGN, "name": "Winback", "current_run": 1, "published_at": now}
    group = {"customer_group_id": GROUP, "workspace_id": WORKSPACE, "name": "Everyone"}
    group |= {"customer_count": rows, "created_at": now, "updated_at": now}
    tokens = {"access_token": "access", "refresh_token": "refresh", "token_type": "Bearer"}
    workspace = {"workspace_id": WORKSPACE, "name": "Marketing", "campaigns": [campaign | run]}
    return {
        contract.AUTH: tokens | {"expires_in": 7 * 24 * 3600},
        contract.CAMPAIGNS: {"workspaces": [workspace]},
        contract.RERUN_HISTORY: {"runs": [run | {"run_number": 1, "job_uid": "job-1"}]},
        contract.GROUPS: {"groups": [group]},
        contract.CUSTOMERS_PAGES: {"num_pages": -(-rows // 1000), "page_size": 1000, "total": rows},
        contract.MESSAGES_PAGES: {"num_files": pages},
    }


class Service(BaseHTTPRequestHandler):
    """Answers the calls of an export, and serves its pages."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path
    wan: bool
    answers: dict[str, Any]

    def do_GET(self) -> None:
        if self.path.startswith("/pages/"):
            number = int(self.path.removeprefix("/pages/").partition("?")[0])
            with page_file(self.folder, number).open("rb") as file:
                send = partial(os.sendfile, self.connection.fileno(), file.fileno())
                self._send(200, "text/csv; charset=utf-8", os.fstat(file.fileno()).st_size, send)
        else:
            self._answer(self.answers.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == contract.MESSAGES_FETCH:
            self._answer(self._fetched(**json.loads(body)))
        else:
            self._answer(self.answers.get(self.path))

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _fetched(self, file_num: int, export_type: str, **_: object) -> dict[str, str]:
        if export_type == "utf8":
            return {"content": page_file(self.folder, file_num).read_bytes().decode()}
        url = f"http://{self.headers['host']}/pages/{file_num}?signature=none"
        return {"url": url, "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}

    def _answer(self, answer: object) -> None:
        code = 200 if answer else 404
        data = memoryview(json.dumps(answer or {"message": "Not Found"}).encode())

        def send(start: int, size: int) -> int:
            return self.connection.send(data[start : start + size])

        self._send(code, "application/json", len(data), send)

    def _send(self, code: int, kind: str, size: int, send: Callable[[int, int], int]) -> None:
        sleep(LATENCY if self.wan else 0)
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(size))
        self.end_headers()
        start, due = 0, monotonic()
        while start < size:
            sent = send(start, min(AT_ONCE if self.wan else size, size - start))
            start += sent
            if self.wan:
                # Of the time that a slow reader lost, little is made up for, as on a real line.
                due = max(due, monotonic() - 0.1) + sent / PACE
                sleep(max(0.0, due - monotonic()))


if __name__ == "__main__":
    Service.folder, Service.wan = Path(sys.argv[1]), "--wan" in sys.argv
    Service.answers = answers(int(sys.argv[2]), len(list(Service.folder.iterdir())))
    ThreadingHTTPServer.request_queue_size = 128
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        sys.stdin.read()
