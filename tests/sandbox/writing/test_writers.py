"""Messages written by a chat endpoint: a real one over HTTP, as OpenAI's API answers."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nudgescribe import segments
from nudgescribe.contract import Run, Status
from sandbox import demo_customers, seed
from sandbox.errors import JobFailed
from sandbox.settings import ChatEndpoint, Settings
from sandbox.writing.writers import Brief, ChatWriter
from tests.conftest import Company, serving
from tests.sandbox.engine.test_reruns import new_group

ChatReply = tuple[int, Any]
BRIEF = Brief("Dear {{ first_name }}, {{ plan }}!", ["first_name", "plan", "region"])
WANTED = [{"plan": f"plan {number}"} for number in range(20)]


def saying(text: str) -> ChatReply:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


@dataclass
class Chat:
    """The endpoint: `answer` is given a request's number and its body."""

    url: str = ""
    answer: Callable[[int, Any], ChatReply] = lambda number, body: saying("Hello {{ first_name }}.")
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    authorised: set[str | None] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0


@pytest.fixture
def chat() -> Iterator[Chat]:
    one, lock = Chat(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                one.asked.append({"path": self.path, **body})
                one.authorised.add(self.headers["authorization"])
                one.at_once += 1
                one.most_at_once = max(one.most_at_once, one.at_once)
                number = len(one.asked)
            status, answer = one.answer(number, body)
            content = json.dumps(answer).encode()
            with lock:
                one.at_once -= 1
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **one.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    one.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield one
    server.shutdown()
    server.server_close()
    thread.join()


def texts(chat: Chat) -> dict[str, str]:
    endpoint = ChatEndpoint(url=chat.url, model="small", key="sk-123")
    batches = ChatWriter(endpoint, max_wait=0).write(BRIEF, WANTED)
    return {segments.key(segment): text for batch in batches for segment, text in batch}


def test_prompt_has_the_template_and_the_segment(chat: Chat) -> None:
    chat.answer = lambda number, body: saying(json.loads(segment_in(body))["plan"])
    assert texts(chat) == {segments.key(each): each["plan"] for each in WANTED}
    asked = chat.asked[0]
    assert (asked["path"], asked["model"]) == ("/v1/chat/completions", "small")
    assert BRIEF.template in asked["messages"][1]["content"]
    assert "first_name, plan, region" in asked["messages"][0]["content"]
    assert chat.authorised == {"Bearer sk-123"}


def segment_in(body: Any) -> str:
    return body["messages"][1]["content"].splitlines()[0].removeprefix("The segment: ")


def test_chat_calls_are_concurrent(chat: Chat) -> None:
    together = threading.Barrier(4)

    def answer(number: int, body: Any) -> ChatReply:
        if number <= 4:
            together.wait(30)
        return saying("Hello.")

    chat.answer = answer
    assert len(texts(chat)) == len(WANTED)
    assert 4 <= chat.most_at_once <= 8


@pytest.mark.parametrize(
    "bad",
    [
        (429, {}),
        (503, {}),
        (200, {"choices": []}),
        (200, "no chat"),
        saying("Hello {{ password }}."),
        saying("{% for x in y %}"),
    ],
)
def test_unusable_answer_is_retried(chat: Chat, bad: ChatReply) -> None:
    chat.headers = {"retry-after": "0"}
    chat.answer = lambda number, body: bad if number <= 3 else saying("Hello {{ first_name }}.")
    assert set(texts(chat).values()) == {"Hello {{ first_name }}."}
    assert len(chat.asked) == len(WANTED) + 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((500, {}), "gave no message: it answered 500"),
        ((401, {}), "The chat endpoint answered 401"),
        (saying("Hello {{ password }}."), "1 places of the template are no fields"),
    ],
)
def test_endpoint_that_stays_unusable_fails_the_job(
    chat: Chat, bad: ChatReply, reason: str
) -> None:
    chat.answer = lambda number, body: bad
    with pytest.raises(JobFailed, match=reason):
        texts(chat)
    assert len(chat.asked) <= 5 * len(WANTED)


def test_unreachable_endpoint_fails_the_job() -> None:
    with pytest.raises(JobFailed, match="gave no message: ConnectError"):
        texts(Chat(url="http://127.0.0.1:9"))


@pytest.fixture
def company(chat: Chat, tmp_path: Path) -> Iterator[Company]:
    """A company whose messages the endpoint writes."""
    endpoint = ChatEndpoint(url=chat.url, model="small")
    with serving(Settings(data=tmp_path, chat=endpoint)) as service:
        yield Company(service, seed.seed(service.context, 60))


def rerun(company: Company) -> Run:
    with company.client() as client:
        client.initiate_rerun(company.seeded.campaign_id, new_group(company, client))
        return company.settle(client)


def test_rerun_asks_for_its_new_segments_only(company: Company, chat: Chat) -> None:
    chat.answer = lambda number, body: saying("Hello {{ first_name }}, dear student.")
    assert rerun(company).status == Status.READY_FOR_REVIEW
    with company.client() as client:
        messages = client.rerun_messages(company.seeded.campaign_id)
    new = [each for each in messages if each.review_status == "Pending"]
    assert len(new) == len(chat.asked) == len(demo_customers.REGIONS)
    assert {each.message for each in new} == {"Hello {{ first_name }}, dear student."}
    assert {each.segment["plan"] for each in new} == {"student"}
    assert chat.authorised == {None}


def test_rerun_without_its_messages_fails(company: Company, chat: Chat) -> None:
    chat.answer = lambda number, body: (400, {})
    run = rerun(company)
    assert (run.status, run.error) == (Status.FAILED, "The chat endpoint answered 400.")
