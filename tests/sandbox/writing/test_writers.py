"""Messages written by a chat endpoint: a real one over HTTP, as OpenAI's API answers."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nudgescribe import segments
from nudgescribe.contract import Status
from sandbox import demo_customers, seed
from sandbox.errors import JobFailed
from sandbox.settings import ChatEndpoint, Settings
from sandbox.writing.writers import Brief, ChatWriter
from tests.conftest import Company, serving
from tests.sandbox.conftest import rerun
from tests.support import http_server
from tests.support.chat import HELLO, Chat, saying
from tests.support.http_server import Reply, as_json

BRIEF = Brief("Dear {{ first_name }}, {{ plan }}!", ["first_name", "plan", "region"])
WANTED = [{"plan": f"plan {number}"} for number in range(20)]


@pytest.fixture
def chat() -> Iterator[Chat]:
    with http_server.serving(Chat()) as chat:
        yield chat


def texts(chat: Chat) -> dict[str, str]:
    endpoint = ChatEndpoint(url=f"{chat.url}/v1", model="small", key="sk-123")
    batches = ChatWriter(endpoint, max_wait=0).write(BRIEF, WANTED)
    return {segments.key(segment): text for batch in batches for segment, text in batch}


def test_prompt_has_the_template_and_the_segment(chat: Chat) -> None:
    chat.say = lambda number, body: saying(json.loads(segment_in(body))["plan"])
    assert texts(chat) == {segments.key(each): each["plan"] for each in WANTED}
    asked = json.loads(chat.requests[0].body)
    assert (chat.requests[0].path, asked["model"]) == ("/v1/chat/completions", "small")
    assert BRIEF.template in asked["messages"][1]["content"]
    assert "first_name, plan, region" in asked["messages"][0]["content"]
    assert chat.authorised == {"Bearer sk-123"}


def segment_in(body: Any) -> str:
    return body["messages"][1]["content"].splitlines()[0].removeprefix("The segment: ")


def test_chat_calls_are_concurrent(chat: Chat) -> None:
    together = threading.Barrier(4)

    def answer(number: int, body: Any) -> Reply:
        if number <= 4:
            together.wait(30)
        return saying("Hello.")

    chat.say = answer
    assert len(texts(chat)) == len(WANTED)
    assert 4 <= chat.most_at_once <= 8


@pytest.mark.parametrize(
    "bad",
    [
        as_json({}, 429, retry_after="0"),
        as_json({}, 503, retry_after="0"),
        as_json({"choices": []}),
        as_json("no chat"),
        saying("Hello {{ password }}."),
        saying("{% for x in y %}"),
    ],
)
def test_unusable_answer_is_retried(chat: Chat, bad: Reply) -> None:
    chat.say = lambda number, body: bad if number <= 3 else HELLO
    assert set(texts(chat).values()) == {"Hello {{ first_name }}."}
    assert len(chat.requests) == len(WANTED) + 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (as_json({}, 500), "gave no message: it answered 500"),
        (as_json({}, 401), "The chat endpoint answered 401"),
        (saying("Hello {{ password }}."), "1 placeholders of the template do not name a field"),
    ],
)
def test_endpoint_that_stays_unusable_fails_the_job(chat: Chat, bad: Reply, reason: str) -> None:
    chat.say = lambda number, body: bad
    with pytest.raises(JobFailed, match=reason):
        texts(chat)
    assert len(chat.requests) <= 5 * len(WANTED)


def test_unreachable_endpoint_fails_the_job() -> None:
    chat = Chat()
    chat.url = "http://127.0.0.1:9"
    with pytest.raises(JobFailed, match="gave no message: ConnectError"):
        texts(chat)


@pytest.fixture
def company(chat: Chat, tmp_path: Path) -> Iterator[Company]:
    """A company whose messages the endpoint writes."""
    endpoint = ChatEndpoint(url=f"{chat.url}/v1", model="small")
    with serving(Settings(data=tmp_path, chat=endpoint)) as service:
        yield Company(service, seed.seed(service.context, 60))


def test_rerun_asks_for_its_new_segments_only(company: Company, chat: Chat) -> None:
    chat.say = lambda number, body: saying("Hello {{ first_name }}, dear student.")
    with company.client() as client:
        assert rerun(company, client).status == Status.READY_FOR_REVIEW
        messages = client.rerun_messages(company.seeded.campaign_id)
    new = [each for each in messages if each.review_status == "Pending"]
    assert len(new) == len(chat.requests) == len(demo_customers.REGIONS)
    assert {each.message for each in new} == {"Hello {{ first_name }}, dear student."}
    assert {each.segment["plan"] for each in new} == {"student"}
    assert chat.authorised == {None}


def test_rerun_without_its_messages_fails(company: Company, chat: Chat) -> None:
    chat.say = lambda number, body: as_json({}, 400)
    with company.client() as client:
        run = rerun(company, client)
    assert (run.status, run.error) == (Status.FAILED, "The chat endpoint answered 400.")
