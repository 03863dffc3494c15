"""Reruns whose messages a model writes, as their campaigns' AI configurations have it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nudgescribe.contract import Run, SegmentMessage, Status
from sandbox import seed
from sandbox.engine import quota
from sandbox.settings import ChatEndpoint, Settings
from sandbox.writing import writers
from tests.conftest import Company, Sandbox, serving
from tests.sandbox.conftest import rerun
from tests.support import http_server
from tests.support.chat import HELLO, Chat, saying
from tests.support.http_server import DROPPED, Reply, as_json

NEW = 4
"""New segments of a rerun."""
OWN = {"model": "their-own", "prompt": "Write 100 % like a pirate.", "temperature": 0.25}


@pytest.fixture
def chat() -> Iterator[Chat]:
    """The service's endpoint."""
    with http_server.serving(Chat()) as chat:
        yield chat


@pytest.fixture
def own_chat() -> Iterator[Chat]:
    """An endpoint of a campaign's own."""
    with http_server.serving(Chat()) as chat:
        yield chat


@pytest.fixture
def sandbox(chat: Chat, tmp_path: Path) -> Iterator[Sandbox]:
    """A service whose campaigns are written by its endpoint, unless they say otherwise."""
    default = ChatEndpoint(url=f"{chat.url}/v1", model="small", key="sk-service")
    with serving(Settings(data=tmp_path, chat=default)) as service:
        yield service


@pytest.fixture
def company(sandbox: Sandbox) -> Company:
    return Company(sandbox, seed.seed(sandbox.context, 60))


def configure(company: Company, **values: object) -> dict[str, Any]:
    """Set the campaign's AI configuration, as people do in the platform."""
    url = f"{company.sandbox.url}/sandbox/campaigns/{company.seeded.campaign_id}/ai"
    return httpx.put(url, json=values).raise_for_status().json()


def rewritten(company: Company) -> tuple[Run, list[SegmentMessage]]:
    """Rerun; return the ended run and its new messages."""
    with company.client() as client:
        run = rerun(company, client)
        messages = client.rerun_messages(company.seeded.campaign_id)
    return run, [each for each in messages if each.review_status == "Pending"]


def test_campaign_without_a_configuration_has_the_services(company: Company, chat: Chat) -> None:
    run, new = rewritten(company)
    assert (run.status, len(new)) == (Status.READY_FOR_REVIEW, NEW)
    assert chat.authorised == {"Bearer sk-service"}
    assert {body["model"] for body in chat.bodies} == {"small"}
    assert not any("temperature" in body for body in chat.bodies)
    assert chat.bodies[0]["messages"][0]["content"].startswith(writers.PROMPT)


def test_campaign_is_written_by_its_own_configuration(
    company: Company, chat: Chat, own_chat: Chat
) -> None:
    own_chat.say = lambda number, body: saying("Ahoy {{ first_name }}!")
    template = "Dear {{ first_name }}, {{ plan }} it is."
    shown = configure(company, endpoint=f"{own_chat.url}/v1/", template=template, **OWN)
    assert shown == {"writer": None, "template": template, "endpoint": f"{own_chat.url}/v1/", **OWN}
    run, new = rewritten(company)
    assert (run.status, {each.message for each in new}) == (
        Status.READY_FOR_REVIEW,
        {"Ahoy {{ first_name }}!"},
    )
    assert not chat.requests
    assert len(own_chat.requests) == NEW
    for body in own_chat.bodies:
        assert (body["model"], body["temperature"]) == ("their-own", 0.25)
        system, user = body["messages"]
        assert system["content"].startswith(OWN["prompt"])
        assert "first_name, last_name" in system["content"]
        assert template in user["content"]


def test_key_of_the_service_goes_to_no_other_endpoint(company: Company, own_chat: Chat) -> None:
    configure(company, endpoint=f"{own_chat.url}/v1")
    assert rewritten(company)[0].status == Status.READY_FOR_REVIEW
    assert own_chat.authorised == {None}
    assert {body["model"] for body in own_chat.bodies} == {"small"}


def test_own_model_at_the_services_endpoint_has_its_key(company: Company, chat: Chat) -> None:
    configure(company, model="large", endpoint=f"{chat.url}/v1/")
    assert rewritten(company)[0].status == Status.READY_FOR_REVIEW
    assert chat.authorised == {"Bearer sk-service"}
    assert {body["model"] for body in chat.bodies} == {"large"}


def test_campaign_may_be_written_from_its_template_alone(company: Company, chat: Chat) -> None:
    configure(company, writer="template", template="To {{ plan }}.", model="unused")
    run, new = rewritten(company)
    assert (run.status, {each.message for each in new}) == (
        Status.READY_FOR_REVIEW,
        {"To student."},
    )
    assert not chat.requests


def test_configuration_is_of_one_campaign(company: Company, sandbox: Sandbox, chat: Chat) -> None:
    configure(company, writer="template")
    other = Company(sandbox, seed.seed(sandbox.context, 60))
    assert rewritten(other)[0].status == Status.READY_FOR_REVIEW
    assert len(chat.requests) == NEW


def test_model_without_any_endpoint_fails_the_run(tmp_path: Path) -> None:
    with serving(Settings(data=tmp_path)) as service:
        company = Company(service, seed.seed(service.context, 60))
        configure(company, writer="model", model="any")
        run, _ = rewritten(company)
    assert run.status == Status.FAILED
    assert run.error == "The campaign's AI configuration has no endpoint, nor has the service."


@pytest.mark.parametrize(
    "values",
    [
        {"writer": "somebody"},
        {"temperature": 2.1},
        {"temperature": "hot"},
        {"endpoint": "file:///etc/passwd"},
        {"template": "\0"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_configuration_that_is_none_is_refused(company: Company, values: dict[str, Any]) -> None:
    url = f"{company.sandbox.url}/sandbox/campaigns/{company.seeded.campaign_id}/ai"
    assert httpx.put(url, json=values).status_code == 400
    unknown = f"{company.sandbox.url}/sandbox/campaigns/unknown/ai"
    assert httpx.put(unknown, json={}).status_code == 404


FAULTS: dict[str, list[Reply]] = {
    "429": [as_json({"error": {"message": "Rate limit"}}, 429, retry_after="0")] * 3,
    "500": [as_json({"error": {"message": "Internal"}}, 500)] * 3,
    "no body": [Reply(500), Reply(200)],
    "dropped": [DROPPED, DROPPED],
    "cut off": [Reply(200, HELLO.body, HELLO.headers, cut_off=20)],
    "no JSON": [Reply(200, b"<html>busy</html>"), Reply(200, b'{"choices": [')],
    "no choice": [as_json({"choices": []}), as_json({"choices": None}), as_json([])],
    "no text": [as_json({"choices": [{"message": {"content": None}}]}), saying("  \n")],
    "parts": [as_json({"choices": [{"message": {"content": [{"text": "a"}]}}]})],
    "odd encoding": [Reply(200, b"no gzip", {"content-encoding": "gzip"})],
    "unknown placeholder": [saying("Hello {{ password }}."), saying("{% for x in y %}")],
}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for an endpoint."""
    monkeypatch.setattr(writers, "MAX_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(writers, "TIMEOUT_SECONDS", 0.3)


def generated(company: Company) -> int:
    """Return how many messages the account has been charged for."""
    context = company.sandbox.context
    with context.store.read() as session:
        return quota.used(session, context.settings, company.seeded.account_id).generated


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("replies", FAULTS.values(), ids=FAULTS)
def test_rerun_survives_faults_of_the_endpoint(
    company: Company, chat: Chat, replies: list[Reply]
) -> None:
    chat.fail(*replies)
    run, new = rewritten(company)
    assert (run.status, len(new)) == (Status.READY_FOR_REVIEW, NEW)
    assert len(chat.requests) == NEW + len(replies)
    assert generated(company) == NEW


Say = Callable[[int, Any], Reply]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (lambda number, body: as_json({}, 429, retry_after="0"), "it answered 429."),
        (lambda number, body: as_json({}, 500), "it answered 500."),
        (lambda number, body: as_json("odd"), "its answer is no chat completion."),
        (lambda number, body: saying(""), "its message is blank."),
    ],
    ids=["429", "500", "odd JSON", "blank"],
)
def test_endpoint_that_stays_unusable_fails_the_run(
    company: Company, chat: Chat, say: Say, reason: str
) -> None:
    chat.say = say
    before = company.history()
    run, _ = rewritten(company)
    assert run.status == Status.FAILED
    assert run.error == f"The chat endpoint gave no message: {reason}"
    assert company.history()[1:] == before
    assert generated(company) == 0


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("host", "error"), [("é..x", "InvalidURL"), ("a" * 64, "UnicodeError"), ("x:0", "ConnectError")]
)
def test_endpoint_that_cannot_be_reached_fails_the_run(
    company: Company, host: str, error: str
) -> None:
    configure(company, endpoint=f"http://{host}/v1")
    run, _ = rewritten(company)
    assert run.status == Status.FAILED
    assert run.error == f"The chat endpoint gave no message: {error}."


@pytest.mark.usefixtures("hurried")
def test_endpoint_that_is_too_slow_is_asked_again(company: Company, chat: Chat) -> None:
    def say(number: int, body: Any) -> Reply:
        if number <= NEW:
            chat.closed.wait(1)
        return HELLO

    chat.say = say
    run, new = rewritten(company)
    assert (run.status, len(new)) == (Status.READY_FOR_REVIEW, NEW)
    assert len(chat.requests) == 2 * NEW
