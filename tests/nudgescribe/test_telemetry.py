"""What the client tells OpenTelemetry of its calls."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, use_span

from nudgescribe import contract, errors, telemetry
from nudgescribe.client import NudgescribeClient
from nudgescribe.retry import RetryPolicy
from nudgescribe.telemetry import ENDPOINT, ERROR, LINK, METHOD, STATUS, within_span
from sandbox.middleware.faults import LINKS
from tests.conftest import Company
from tests.support.measured import Measured, measuring
from tests.support.response_tamperer import Fault, ResponseTamperer


@pytest.fixture
def measured() -> Iterator[Measured]:
    with measuring() as measured:
        yield measured


def of(company: Company, *faults: Fault, path: str = contract.GROUPS) -> NudgescribeClient:
    """A client, the first calls of which meet these faults."""
    waits = RetryPolicy(sleep=lambda seconds: None)
    return company.client(transport=ResponseTamperer({path: [*faults]}), retry=waits)


def test_call_is_a_span_and_a_number(company: Company, measured: Measured) -> None:
    with of(company) as client:
        client.list_groups(company.seeded.workspace_id)
    sign_in, call = measured.spans()
    assert (sign_in.name, call.name) == ("POST /v1/auth", "POST /v1/cg")
    assert call.kind is SpanKind.CLIENT
    assert call.status.status_code is StatusCode.UNSET
    assert dict(call.attributes or {}) == {METHOD: "POST", ENDPOINT: "/v1/cg", STATUS: 200}
    calls = measured.sums("nudgeflow.call.duration", METHOD, ENDPOINT, STATUS)
    assert calls == {("POST", "/v1/auth", 200): 1, ("POST", "/v1/cg", 200): 1}


def test_each_try_is_a_call_and_the_wait_is_told(company: Company, measured: Measured) -> None:
    asked = httpx.Response(503, headers={"retry-after": "7"})
    with of(company, asked, httpx.ReadTimeout) as client:
        client.list_groups(company.seeded.workspace_id)
    _, refused, lost, answered = measured.spans()
    assert [(each.attributes or {}).get(ERROR) for each in (refused, lost, answered)] == [
        "503",
        "ReadTimeout",
        None,
    ]
    assert refused.status.status_code is StatusCode.ERROR
    assert STATUS not in (lost.attributes or {})
    assert 7 <= measured.sums("nudgeflow.wait", "reason")["retry",] < 38


def test_answer_that_breaks_off_is_an_error(company: Company, measured: Measured) -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"{"
            raise httpx.ReadError("secret")

    with of(company, httpx.Response(200, stream=Broken())) as client:
        client.list_groups(company.seeded.workspace_id)
    broken = measured.spans()[1]
    assert dict(broken.attributes or {}) == {
        METHOD: "POST",
        ENDPOINT: "/v1/cg",
        STATUS: 200,
        ERROR: "ReadError",
    }


def test_base_url_with_a_path_is_in_no_endpoint(company: Company, measured: Measured) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path.startswith("/secret/v1")
        return httpx.Response(403, json={"message": "No."})

    transport = ResponseTamperer(answer=answer)
    with (
        NudgescribeClient(
            "https://gateway.example/secret/", company.credentials, transport=transport
        ) as client,
        pytest.raises(errors.NudgeflowError),
    ):
        client.campaigns()
    assert [span.name for span in measured.spans()] == ["POST /v1/auth"]


def test_downloads_are_counted_by_their_way(company: Company, measured: Measured) -> None:
    with company.client(retry=RetryPolicy(attempts=1)) as client:
        by_link = client.download_page(company.seeded.campaign_id, 0, BytesIO())
        company.sandbox.fault(LINKS, status=410, times=1)
        as_text = client.download_page(company.seeded.campaign_id, 0, BytesIO())
    assert measured.sums("nudgeflow.download", "way") == {("link",): by_link, ("text",): as_text}
    links = [span for span in measured.spans() if span.name == f"GET {LINK}"]
    assert [dict(span.attributes or {}) for span in links] == [
        {METHOD: "GET", ENDPOINT: LINK, STATUS: 200},
        {METHOD: "GET", ENDPOINT: LINK, STATUS: 410, ERROR: "LinkFailed"},
    ]
    assert (links[1].status.description, links[1].events) == (None, ())


def test_calls_of_other_threads_belong_to_the_span_here(measured: Measured) -> None:
    around = measured.tracers.get_tracer("tests").start_span("task")
    with use_span(around), ThreadPoolExecutor(1) as threads:
        seen = threads.submit(within_span(lambda: get_current_span())).result()
        strange = threads.submit(get_current_span).result()
    assert seen is around
    assert strange is not around


def test_nothing_is_wrapped_before_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_instruments", None)
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    assert telemetry.observed(transport, "https://service.example") is transport
    assert within_span(len) is len
    telemetry.waited("limit", 1)
    telemetry.downloaded(1, "text")
    with telemetry.observe("GET", LINK) as answered:
        answered(200)
