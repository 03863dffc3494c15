"""Why nobody answers at an address, told over real sockets."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event

import pytest

from deployments.environment import free_port
from nudgescribe import errors
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.reach import find_closed, find_obstacle, within
from nudgescribe.retry import RetryPolicy
from tests.support.addresses import dropping, silent, web_server

ONE = Credentials("a@example.com", "s3cret", "s3cret", "s3cret")


def test_any_answer_will_do() -> None:
    with web_server(status=503) as host:
        assert find_obstacle(f"http://{host}") == ""


def test_port_that_takes_no_connections_is_told() -> None:
    with silent() as address:
        host, _, port = address.partition(":")
        assert find_closed(host, int(port)) == ""
    told = find_closed(host, int(port), pause=0)
    assert told == f"{address} refuses connections: nothing listens on this port"
    with dropping() as address:
        host, _, port = address.partition(":")
        told = find_closed(host, int(port))
        assert told == f"{address} cannot be reached: no connection came about in time"
    assert find_closed("crm.invalid", 5432).startswith("crm.invalid:5432 ")


@pytest.mark.parametrize("url", ["localhost:9000", "s3://b", "http://", "http://a:b", ""])
def test_what_is_no_url_is_left_to_others(url: str) -> None:
    assert find_obstacle(url) == ""


def test_other_protocol_is_told(tmp_path: Path) -> None:
    with web_server() as host:
        assert find_obstacle(f"https://{host}") == (
            f"{host} speaks http, not https: let the URL begin with http://"
        )
    https = "speaks https, not http: let the URL begin with https://"
    with web_server(tmp_path) as host:
        assert find_obstacle(f"http://{host}", pause=0) == f"{host} {https}"
    # Other servers answer in http that https is wanted.
    with web_server(tmp_path) as secure, web_server(status=301) as host:
        assert find_obstacle(f"http://{host}") == ""
    with web_server(status=301, headers={"location": f"https://{secure}/"}) as host:
        assert find_obstacle(f"http://{host}") == f"{host} {https}"


def test_certificate_that_is_not_trusted_is_told(tmp_path: Path) -> None:
    with web_server(tmp_path) as host:
        told = find_obstacle(f"https://{host}")
        assert told.startswith(f"{host} has a certificate that is not trusted here: self")
        assert find_obstacle(f"https://{host}", trusted=False) == ""


def test_closed_port_and_unknown_host_are_told() -> None:
    port = free_port()
    for protocol in ("http", "https"):
        told = find_obstacle(f"{protocol}://127.0.0.1:{port}", pause=0)
        assert told == f"127.0.0.1:{port} refuses connections: nothing listens on this port"
    told = find_obstacle("https://nudgescribe.invalid")
    assert told.startswith("nudgescribe.invalid ")
    assert told.endswith(("there is no host of this name", "no name server answers"))


@pytest.mark.parametrize("nobody", [silent, dropping])
@pytest.mark.parametrize("protocol", ["http", "https"])
def test_nobody_is_waited_for_longer_than_said(
    protocol: str, nobody: Callable[[], AbstractContextManager[str]]
) -> None:
    with nobody() as host:
        told = find_obstacle(f"{protocol}://{host}", seconds=0.2)
    assert told == f"{host} has not answered within 0.2 seconds"


def test_work_in_time_returns_or_raises_as_it_does() -> None:
    assert within(10, lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)
    with pytest.raises(TimeoutError):
        within(0.05, Event().wait)


def test_call_without_an_answer_names_host_and_reason() -> None:
    port = free_port()
    once = RetryPolicy(attempts=1)
    with NudgescribeClient(f"http://127.0.0.1:{port}", ONE, retry=once) as client:
        with pytest.raises(errors.ConnectionFailed) as caught:
            client.campaigns()
    told = (
        f"POST /v1/campaign/all got no answer: ConnectError, 127.0.0.1:{port} refuses connections"
    )
    assert caught.value.problem == f"{told}: nothing listens on this port."
