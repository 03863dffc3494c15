"""Salesforce, as far as query jobs of its Bulk API 2.0 go, after its developer guide."""

import base64
import json
import re
from typing import Any
from urllib.parse import parse_qs

from tests.support.http_server import FakeService, Reply, Request, as_json

CLIENT_ID = "3MVG9.consumer.key"
CLIENT_SECRET = "canary-consumer-secret"
QUERY = "SELECT Id, Name, Note__c FROM Contact WHERE Email != 'ada@example.com'"
JOBS = "/services/data/v62.0/jobs/query"
ENDED = ("JobComplete", "Failed", "Aborted")


class Salesforce(FakeService):
    """`rows` are a query's result under `columns`; a job is seen in `states` one after the other,
    the last of them for good; `fields` are those of each kind of object. A token is good for
    `uses` calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.columns = ["Id", "Name", "Note__c"]
        self.rows: list[list[str]] = []
        self.fields: dict[str, list[dict[str, Any]]] = {}
        self.states = ["UploadComplete", "InProgress", "JobComplete"]
        self.error_message = ""
        self.uses = 1000
        self.tokens: dict[str, int] = {}
        self.instance = ""
        self.jobs: dict[str, list[str]] = {}
        self.queries: list[dict[str, Any]] = []
        self.deleted: list[str] = []

    def answer(self, request: Request) -> Reply:
        if request.call == "POST /services/oauth2/token":
            return self._sign_in(parse_qs(request.body.decode()))
        token = request.headers["authorization"].removeprefix("Bearer ")
        if not self.tokens.get(token):
            return error(401, "INVALID_SESSION_ID")
        self.tokens[token] -= 1
        if request.call == f"POST {JOBS}":
            return self._create(json.loads(request.body))
        if described := re.fullmatch(r"/services/data/v62.0/sobjects/(\w+)/describe", request.path):
            return as_json({"name": described[1], "fields": self.fields[described[1]]})
        found = re.fullmatch(rf"{JOBS}/(\w+)(/results)?", request.path)
        assert found, f"No such place: {request.path}"
        job = found[1]
        if job not in self.jobs:
            return error(404, "NOT_FOUND")
        if found[2]:
            return self._results(job, request.query)
        return {"GET": self._look, "PATCH": self._abort, "DELETE": self._delete}[request.method](
            job, request.body
        )

    def _sign_in(self, form: dict[str, list[str]]) -> Reply:
        if form["grant_type"] != ["client_credentials"]:
            return as_json({"error": "unsupported_grant_type", "error_description": "…"}, 400)
        if form["client_id"] != [CLIENT_ID] or form["client_secret"] != [CLIENT_SECRET]:
            said = f"invalid client credentials: {form['client_secret'][0]}"
            return as_json({"error": "invalid_client", "error_description": said}, 400)
        token = f"00D!canary.token.{len(self.tokens)}"
        self.tokens[token] = self.uses
        body = {"access_token": token, "token_type": "Bearer", "scope": "api", "signature": "…"}
        return as_json({**body, "instance_url": self.instance or self.url, "issued_at": "1"})

    def _create(self, body: dict[str, Any]) -> Reply:
        self.queries.append(body)
        job = f"750R0000000zxn{len(self.jobs)}IAA"
        self.jobs[job] = [self.states[0], *self.states]
        return self._info(job)

    def _info(self, job: str) -> Reply:
        state = self.jobs[job][0]
        body: dict[str, Any] = {
            "id": job,
            "operation": "query",
            "object": "Contact",
            "createdById": "005R0000000GiwjIAC",
            "createdDate": "2026-01-02T03:04:05.000+0000",
            "state": state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": 62.0,
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
        }
        if state in ENDED:
            body["numberRecordsProcessed"] = len(self.rows)
        if state == "Failed":
            body["errorMessage"] = self.error_message
        return as_json(body)

    def _look(self, job: str, body: bytes) -> Reply:
        if len(self.jobs[job]) > 1:
            self.jobs[job].pop(0)
        return self._info(job)

    def _abort(self, job: str, body: bytes) -> Reply:
        assert json.loads(body) == {"state": "Aborted"}
        if self.jobs[job][0] in ENDED:
            return error(400, "INVALIDJOBSTATE")
        self.jobs[job] = ["Aborted"]
        return self._info(job)

    def _delete(self, job: str, body: bytes) -> Reply:
        if self.jobs[job][0] not in ENDED:
            return error(400, "API_ERROR")
        del self.jobs[job]
        self.deleted.append(job)
        return Reply(204)

    def _results(self, job: str, query: dict[str, str]) -> Reply:
        assert self.jobs[job] == ["JobComplete"]
        first = int(base64.b64decode(query.get("locator", "MA==")))
        last = first + int(query["maxRecords"])
        locator = base64.b64encode(b"%d" % last).decode() if last < len(self.rows) else "null"
        return page(self.columns, self.rows[first:last], locator)


def page(columns: list[str], rows: list[list[str]], locator: str = "null", **headers: str) -> Reply:
    quoted = (
        ",".join('"' + value.replace('"', '""') + '"' for value in row) for row in [columns, *rows]
    )
    named = {"content-type": "text/csv", "Sforce-Locator": locator}
    body = "".join(f"{line}\n" for line in quoted).encode()
    return Reply(200, body, {**named, "Sforce-NumberOfRecords": str(len(rows)), **headers})


def error(status: int, code: str) -> Reply:
    return as_json([{"errorCode": code, "message": "canary: ada@example.com"}], status)
