"""HubSpot, as far as lists of contacts go. Nothing that its description does not allow is asked
of it or answered by it.
"""

import base64
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator

from tests.support.http_server import FakeService, Reply, Request, as_json

API = json.loads(Path(__file__).with_name("hubspot_api.json").read_text())
TOKEN = "pat-eu1-canary-token"
NOW = "2026-01-02T03:04:05.678Z"
CALLS, WINDOW = 100, 10.0


class HubSpot(FakeService):
    """`contacts` by record id, `lists` of their ids; `merged` are ids of contacts that
    are now another's.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.now = now
        self.contacts: dict[str, dict[str, str | None]] = {}
        self.lists: dict[str, list[str]] = {}
        self.object_type = "0-1"
        self.processing = "COMPLETE"
        self.merged: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.moments: list[float] = []

    def add(self, list_id: str, *contacts: dict[str, str | None]) -> None:
        """A list of new contacts, whose record ids are at some distance from each other."""
        self.lists[list_id] = []
        for values in contacts:
            record = str(1000 + 7 * len(self.contacts))
            self.contacts[record] = {"hs_object_id": record, **values}
            self.lists[list_id].append(record)

    def answer(self, request: Request) -> Reply:
        name, found = next(
            (name, found)
            for name in API["operations"]
            if (found := re.fullmatch(re.sub(r"\{\w+\}", "([^/]+)", name), request.call))
        )
        operation = API["operations"][name]
        _validate(operation["query"], request.query)
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return _error(401, "INVALID_AUTHENTICATION")
        if not self._within_limits():
            return as_json(
                {"errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING", "message": "…"},
                429,
                X_HubSpot_RateLimit_Interval_Milliseconds=str(int(WINDOW * 1000)),
                X_HubSpot_RateLimit_Daily_Remaining="1000",
            )
        if "body" in operation:
            _validate(operation["body"], json.loads(request.body))
            status, body = self._read(json.loads(request.body))
        elif found.groups() and found[1] not in self.lists:
            return _error(404, "OBJECT_NOT_FOUND")
        elif name.endswith("/memberships"):
            status, body = 200, self._members(found[1], request.query)
        elif found.groups():
            status, body = 200, {"list": self._list(found[1])}
        else:
            status, body = 200, {"results": self._properties()}
        _validate(operation["answer"], body)
        return as_json(body, status)

    def _within_limits(self) -> bool:
        with self.lock:
            self.moments = [then for then in self.moments if then > self.now() - WINDOW]
            self.moments.append(self.now())
            return len(self.moments) <= CALLS

    def _list(self, list_id: str) -> dict[str, Any]:
        return {
            "listId": list_id,
            "listVersion": 1,
            "name": "Customers",
            "objectTypeId": self.object_type,
            "processingStatus": self.processing,
            "processingType": "DYNAMIC",
        }

    def _members(self, list_id: str, query: dict[str, str]) -> dict[str, Any]:
        first = int(base64.b64decode(query["after"])) if "after" in query else 0
        limit = int(query.get("limit", 100))
        members = sorted(map(int, self.lists[list_id]))
        page = [each for each in members if each >= first][:limit]
        body: dict[str, Any] = {
            "total": len(members),
            "results": [{"recordId": str(each), "membershipTimestamp": NOW} for each in page],
        }
        if page and page[-1] < members[-1]:
            # One that was on this page comes again on the next, as if it had just been moved.
            body["paging"] = {"next": {"after": base64.b64encode(b"%d" % page[-1]).decode()}}
        return body

    def _properties(self) -> list[dict[str, Any]]:
        names = {name: None for values in self.contacts.values() for name in values}
        texts = dict.fromkeys(("description", "fieldType", "groupName", "label", "type"), "text")
        return [{**texts, "name": name, "options": []} for name in names]

    def _read(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        ids = [self.merged.get(each["id"], each["id"]) for each in asked["inputs"]]
        gone = [each for each in ids if each not in self.contacts]
        body: dict[str, Any] = {"status": "COMPLETE", "startedAt": NOW, "completedAt": NOW}
        # In an order of its own.
        body["results"] = [
            {
                "id": each,
                "createdAt": NOW,
                "updatedAt": NOW,
                "properties": self._values(each, asked),
            }
            for each in sorted(ids, key=lambda each: each[::-1])
            if each in self.contacts
        ]
        if not gone:
            return 200, body
        error = {
            "status": "error",
            "category": "OBJECT_NOT_FOUND",
            "message": "Could not get some CONTACT objects, they may be deleted or not exist.",
            "context": {"ids": gone},
            "errors": [],
            "links": {},
        }
        return 207, {**body, "numErrors": 1, "errors": [error]}

    def _values(self, record: str, asked: dict[str, Any]) -> dict[str, str | None]:
        values = self.contacts[record]
        names = [*asked["properties"], "hs_object_id"]
        return {name: values.get(name) for name in names if name not in self.hidden}


def _error(status: int, category: str) -> Reply:
    body = {"status": "error", "category": category, "message": "canary: ada@example.com"}
    body["correlationId"] = "aeb5f871-7f07-4993-9211-075dc63e7cbf"
    _validate({"$ref": "#/$defs/Error"}, body)
    return as_json(body, status)


def _validate(schema: dict[str, Any], body: object) -> None:
    _validator(json.dumps(schema)).validate(body)


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "$defs": API["$defs"]})
