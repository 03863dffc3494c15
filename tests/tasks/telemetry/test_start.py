"""What a process imports and says for telemetry, with and without a receiver and the extra."""

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from time import time

import pytest

from tasks.telemetry.providers import CLOSING_SECONDS, SECONDS
from tests.support.http_server import serving
from tests.support.otlp import Receiver, run_program

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
NOWHERE = "http://127.0.0.1:9"
IMPORTING = """
import sys
import flows.refresh, flows.export
of_sdk = ("opentelemetry.sdk", "opentelemetry.exporter")
print(any(module and name.startswith(of_sdk) for name, module in sys.modules.items()))
"""
WITHOUT = "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http'] = None" + IMPORTING
TOLD = 'which needs the extra otel: pip install "nudgeflow[otel]". Nothing is sent.'
MANY = 3000
CALLING = f"""
from time import monotonic, time
from prefect import flow
import tasks
from nudgescribe.telemetry import observe

@flow
def calling() -> None:
    for _ in range({MANY}):  # more than are held for a receiver
        with observe("GET", "/v1/cg") as answered:
            answered(200)

@flow
def working() -> float:
    began = monotonic()
    calling()
    return monotonic() - began

print(working())
print(time())
"""

FORKING = """
import os, sys
import flows.refresh
from nudgescribe.telemetry import observe

for number in range(2):
    if os.fork() == 0:
        with observe("GET", f"/v1/{number}") as answered:
            answered(200)
        sys.exit()
for _ in range(2):
    os.wait()
"""


@pytest.fixture(params=["closed", "silent"])
def dead_receiver(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a port where nothing listens, or where nobody answers."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: NOWHERE, "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: NOWHERE, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
    ids=["nothing", "empty", "disabled", "none"],
)
def test_nothing_is_imported_without_a_receiver(
    prefect_server: None, variables: dict[str, str]
) -> None:
    done = run_program(WITHOUT, **variables)
    assert (done.stdout, TOLD in done.stderr) == ("False\n", False)


def test_receiver_without_the_extra_is_told_once(prefect_server: None) -> None:
    done = run_program(WITHOUT, **{ENDPOINT: NOWHERE})
    assert (done.stdout, done.stderr.count(TOLD)) == ("False\n", 1)


@pytest.mark.parametrize("signal", ["TRACES", "METRICS"])
def test_receiver_of_one_signal_is_enough(prefect_server: None, signal: str) -> None:
    done = run_program(IMPORTING, **{f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": NOWHERE})
    assert done.stdout == "True\n"


def test_variable_that_the_sdk_refuses_stops_no_flow(prefect_server: None) -> None:
    done = run_program(IMPORTING, **{ENDPOINT: NOWHERE, "OTEL_METRIC_EXPORT_INTERVAL": "-5"})
    assert done.stdout == "True\n"
    assert done.stderr.count("No telemetry is sent: ValueError while it was set up.") == 1
    assert "-5" not in done.stderr


def test_flow_neither_fails_nor_waits_for_a_dead_receiver(
    prefect_server: None, dead_receiver: str
) -> None:
    done = run_program(CALLING, **{ENDPOINT: dead_receiver})
    ended = time()
    seconds, finished = map(float, done.stdout.split())
    assert seconds < 10
    assert ended - finished < 2 * SECONDS + 5
    told = "Telemetry is not received; flows go on without it."
    assert 1 <= done.stderr.count(told) <= 2  # of each signal
    assert dead_receiver.partition("//")[2] not in done.stderr


class Endless(BaseRequestHandler):
    """Answers, and never ends its answer."""

    over = Event()

    def handle(self) -> None:
        with suppress(OSError):
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not self.over.wait(0.2):
                self.request.sendall(b" ")


def test_process_ends_though_the_receivers_answer_does_not(prefect_server: None) -> None:
    with ThreadingTCPServer(("127.0.0.1", 0), Endless) as server:
        Thread(target=server.serve_forever).start()
        try:
            done = run_program(
                CALLING, **{ENDPOINT: f"http://127.0.0.1:{server.server_address[1]}"}
            )
        finally:
            Endless.over.set()
            server.shutdown()
    seconds, finished = map(float, done.stdout.split())
    assert seconds < 10
    assert time() - finished < 2 * CLOSING_SECONDS + 5


def test_each_fork_tells_what_it_has_done(prefect_server: None) -> None:
    with serving(Receiver()) as receiver:
        run_program(FORKING, **{ENDPOINT: receiver.url})
    assert sorted(span.name for span in receiver.spans()) == ["GET /v1/0", "GET /v1/1"]
    assert len({each["service.instance.id"] for each in receiver.resources()}) == 2
