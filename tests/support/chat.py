"""A double of a chat endpoint: a real one over HTTP, as OpenAI's API answers, faults included."""

import json
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from tests.support.http_server import FakeService, Reply, Request, as_json

COMPLETIONS = "/chat/completions"


def saying(text: str) -> Reply:
    return as_json({"choices": [{"message": {"role": "assistant", "content": text}}]})


HELLO = saying("Hello {{ first_name }}.")


class Chat(FakeService):
    """The endpoint: `say` is given a request's number and its body."""

    def __init__(self) -> None:
        super().__init__()
        self.say: Callable[[int, Any], Reply] = lambda number, body: HELLO
        self.numbers = count(1)
        self.at_once = 0
        self.most_at_once = 0

    @property
    def authorised(self) -> set[str | None]:
        return {request.headers["authorization"] for request in self.requests}

    def answer(self, request: Request) -> Reply:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            number = next(self.numbers)
        reply = self.say(number, json.loads(request.body))
        with self.lock:
            self.at_once -= 1
        return reply

    def fail(self, *replies: Reply) -> None:
        """Give these replies first, one for each call."""
        self.faults[COMPLETIONS] = list(replies)

    @property
    def bodies(self) -> Sequence[Any]:
        """What it was asked."""
        return [json.loads(request.body) for request in self.requests]
