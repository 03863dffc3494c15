"""Writers of new segments' messages: the campaign's template, or a chat endpoint."""

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

MAX_CONCURRENT_CALLS = 8
ATTEMPTS = 5
TIMEOUT_SECONDS = 60.0
MAX_WAIT_SECONDS = 30.0
TOO_MANY_REQUESTS = 429

PROMPT = """\
You write one marketing message for one segment of customers, from the campaign's template."""
RULES = """\
Where the template has a placeholder such as {{ first_name }}, keep it, written exactly so: it is
filled in later for each customer. These placeholders may be used: %s.
Answer with the message and nothing else."""


@dataclass(frozen=True)
class Brief:
    """What a campaign gives its writer: the template, and the fields for placeholders."""

    template: str
    fields: Sequence[str]


Texts = Sequence[tuple[Segment, str]]


class MessageWriter(Protocol):
    """Writer of segments' texts."""

    def write(self, brief: Brief, wanted: Sequence[Segment]) -> Iterator[Texts]:
        """Yield a text for every segment, some at a time, as they are ready. Raises JobFailed."""
        ...


class TemplateWriter:
    """Writer from the template alone: the same text for the same segment every time."""

    def write(self, brief: Brief, wanted: Sequence[Segment]) -> Iterator[Texts]:
        try:
            yield [(segment, templates.fill_segment(brief.template, segment)) for segment in wanted]
        except templates.BadTemplate as error:
            raise JobFailed(str(error)) from None


class ChatWriter:
    """Writer by an OpenAI-compatible chat endpoint, asked once per segment, several at a time."""

    def __init__(
        self,
        endpoint: ChatEndpoint,
        *,
        prompt: str = PROMPT,
        temperature: float | None = None,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._prompt = prompt
        self._options = {} if temperature is None else {"temperature": temperature}
        self._max_wait = max_wait
        self._backoff = wait_random_exponential(max=max_wait)

    def write(self, brief: Brief, wanted: Sequence[Segment]) -> Iterator[Texts]:
        headers = {"authorization": f"Bearer {self._endpoint.key}"} if self._endpoint.key else {}
        with (
            httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS) as http,
            ThreadPoolExecutor(MAX_CONCURRENT_CALLS) as pool,
        ):
            ask = partial(self._ask, http, brief)
            futures = {pool.submit(ask, segment): segment for segment in wanted}
            try:
                for future in as_completed(futures):
                    yield [(futures[future], future.result())]
            finally:
                pool.shutdown(cancel_futures=True)

    def _ask(self, http: httpx.Client, brief: Brief, segment: Segment) -> str:
        retrying = Retrying(
            retry=retry_if_exception_type(_NoMessage),
            stop=stop_after_attempt(ATTEMPTS),
            wait=self._wait,
            reraise=True,
        )
        try:
            return retrying(self._ask_once, http, brief, segment)
        except _NoMessage as error:
            raise JobFailed(f"The chat endpoint gave no message: {error}") from None

    def _ask_once(self, http: httpx.Client, brief: Brief, segment: Segment) -> str:
        request = {
            "model": self._endpoint.model,
            "messages": [
                {"role": "system", "content": f"{self._prompt}\n{RULES % ', '.join(brief.fields)}"},
                {"role": "user", "content": _task(brief, segment)},
            ],
            **self._options,
        }
        try:
            response = http.post(f"{self._endpoint.url.rstrip('/')}/chat/completions", json=request)
        except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as error:
            raise _NoMessage(f"{type(error).__name__}.") from None
        if response.status_code == TOO_MANY_REQUESTS or response.is_server_error:
            raise _NoMessage(f"it answered {response.status_code}.", retry_after(response.headers))
        if not response.is_success:
            raise JobFailed(f"The chat endpoint answered {response.status_code}.")
        try:
            text = _Completion.model_validate_json(response.content).choices[0].message.content
            templates.check(text, brief.fields)
        except (ValidationError, IndexError):
            raise _NoMessage("its answer is no chat completion.") from None
        except templates.BadTemplate as error:
            raise _NoMessage(str(error)) from None
        if not text.strip():
            raise _NoMessage("its message is blank.")
        return text

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, _NoMessage) and failure.retry_after is not None:
            return min(failure.retry_after, self._max_wait)
        return self._backoff(state)


class _NoMessage(Exception):
    """The endpoint gave no usable message, but may give one at another attempt."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class _ChatMessage(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _ChatMessage


class _Completion(BaseModel):
    choices: list[_Choice]


def _task(brief: Brief, segment: Segment) -> str:
    values = json.dumps(dict(segment), ensure_ascii=False)
    return f"The segment: {values}\n\nThe campaign's template:\n{brief.template}"
