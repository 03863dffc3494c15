"""Who writes the messages of new segments: the campaign's template, or a chat endpoint."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from nudgescribe.contract import Segment
from nudgescribe.errors import retry_after
from sandbox.errors import JobFailed
from sandbox.settings import ChatEndpoint
from sandbox.writing import templates

CALLS_AT_ONCE = 8
ATTEMPTS = 5
CALL_SECONDS = 60.0
LONGEST_WAIT = 30.0
QUOTA_EXCEEDED = 429

INSTRUCTIONS = """\
You write one marketing message for one segment of customers, from the campaign's template.
Where the template has a place such as {{ first_name }}, keep such a place, written just so: it is
filled in later for each customer. These places may be used: %s.
Answer with the message and nothing else."""


@dataclass(frozen=True)
class Brief:
    """What a campaign gives the writer: its template and the fields that may have places."""

    template: str
    fields: Sequence[str]


Texts = Sequence[tuple[Segment, str]]


class Generator(Protocol):
    def texts(self, brief: Brief, wanted: Sequence[Segment]) -> Iterator[Texts]:
        """A text for every segment, some at a time, as they are ready. Raises JobFailed."""
        ...


class FromTemplate:
    """The campaign's own words: the same text for the same segment every time."""

    def texts(self, brief: Brief, wanted: Sequence[Segment]) -> Iterator[Texts]:
        try:
            yield [(segment, templates.compose(brief.template, segment)) for segment in wanted]
        except templates.BadTemplate as error:
            raise JobFailed(str(error)) from None


class FromChat:
    """Any OpenAI-compatible chat endpoint, asked once a segment, several at a time."""

    def __init__(self, endpoint: ChatEndpoint, *, longest_wait: float = LONGEST_WAIT) -> None:
        self._endpoint = endpoint
        self._longest_wait = longest_wait
        self._backoff = wait_random_exponential(max=longest_wait)

    def texts(self, brief: Brief, wanted: Sequence[Segment]) -> Iterator[Texts]:
        headers = {"authorization": f"Bearer {self._endpoint.key}"} if self._endpoint.key else {}
        with (
            httpx.Client(headers=headers, timeout=CALL_SECONDS) as http,
            ThreadPoolExecutor(CALLS_AT_ONCE) as pool,
        ):
            write = partial(self._write, http, brief)
            asked = {pool.submit(write, segment): segment for segment in wanted}
            try:
                for answer in as_completed(asked):
                    yield [(asked[answer], answer.result())]
            finally:
                pool.shutdown(cancel_futures=True)

    def _write(self, http: httpx.Client, brief: Brief, segment: Segment) -> str:
        retrying = Retrying(
            retry=retry_if_exception_type(_Unusable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=self._wait,
            reraise=True,
        )
        try:
            return retrying(self._ask, http, brief, segment)
        except _Unusable as error:
            raise JobFailed(f"The chat endpoint gave no message: {error}") from None

    def _ask(self, http: httpx.Client, brief: Brief, segment: Segment) -> str:
        request = {
            "model": self._endpoint.model,
            "messages": [
                {"role": "system", "content": INSTRUCTIONS % ", ".join(brief.fields)},
                {"role": "user", "content": _question(brief, segment)},
            ],
        }
        try:
            answer = http.post(f"{self._endpoint.url.rstrip('/')}/chat/completions", json=request)
        except httpx.TransportError as error:
            raise _Unusable(f"{type(error).__name__}.") from None
        if answer.status_code == QUOTA_EXCEEDED or answer.is_server_error:
            raise _Unusable(f"it answered {answer.status_code}.", retry_after(answer.headers))
        if not answer.is_success:
            raise JobFailed(f"The chat endpoint answered {answer.status_code}.")
        try:
            text = _Answer.model_validate_json(answer.content).choices[0].message.content
            templates.check(text, brief.fields)
        except (ValidationError, IndexError):
            raise _Unusable("its answer is no chat completion.") from None
        except templates.BadTemplate as error:
            raise _Unusable(str(error)) from None
        return text

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, _Unusable) and failure.retry_after is not None:
            return min(failure.retry_after, self._longest_wait)
        return self._backoff(state)


class _Unusable(Exception):
    """Worth asking again."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class _ChatMessage(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _ChatMessage


class _Answer(BaseModel):
    choices: list[_Choice]


def _question(brief: Brief, segment: Segment) -> str:
    known = json.dumps(dict(segment), ensure_ascii=False)
    return f"The segment: {known}\n\nThe campaign's template:\n{brief.template}"
