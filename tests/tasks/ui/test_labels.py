"""Labels, name and tags of the running flow run, against Prefect's server."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow, tags
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run

from tasks.ui import signals
from tests.support import deployed


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As many updates of the flow run as its number says are refused, as by a busy SQLite."""
    left, send = [0], httpx.Client.send

    def refusing(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.method == "PATCH" and "/flow_runs/" in request.url.path and left[0]:
            left[0] -= 1
            return httpx.Response(503, request=request)
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", refusing)
    return left


@flow(persist_result=False)
def labelled() -> str:
    signals.add_labels({"colour": "green"})
    return str(flow_run.id)


def test_labels_are_added_at_once_when_the_server_was_busy(
    prefect_server: None, refused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(signals, "sleep", slept.append)
    refused[0] = 3
    run = labelled()
    assert deployed.flow_run(UUID(run)).labels["colour"] == "green"
    assert slept == [signals.PAUSE_SECONDS] * 3


def test_labels_that_stay_refused_are_an_error(
    prefect_server: None, refused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "sleep", lambda seconds: None)
    monkeypatch.setattr("prefect.client.base.time.sleep", lambda seconds: None)
    refused[0] = 1_000
    state: State[Any] = labelled(return_state=True)
    with pytest.raises(PrefectHTTPStatusError, match="503"):
        state.result()


@flow(persist_result=False)
def named() -> str:
    signals.name_flow_run("Welcome back", "")
    signals.name_flow_run("Welcome back", "Marketing", ", run 3")
    return str(flow_run.id)


@pytest.mark.parametrize("busy", [0, 3, 1_000])
def test_flow_run_is_named_if_the_server_lets_it(
    prefect_server: None, refused: list[int], monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    monkeypatch.setattr(signals, "sleep", lambda seconds: None)
    monkeypatch.setattr("prefect.client.base.time.sleep", lambda seconds: None)
    refused[0] = busy
    with tags("nudgescribe"):
        run = deployed.flow_run(UUID(named()))
    expected = {"nudgescribe", "campaign: Welcome back", "workspace: Marketing"}
    if busy < 1_000:
        assert (run.name, {*run.tags}) == ("Welcome back, run 3", expected)
    else:
        assert {*run.tags} == {"nudgescribe"}


@flow(persist_result=False)
def named_at_length() -> str:
    signals.name_flow_run("Welcome back, dear " * 20, "Marketing " * 40, ", run 3")
    return str(flow_run.id)


def test_long_names_are_cut_in_name_and_tags(prefect_server: None) -> None:
    run = deployed.flow_run(UUID(named_at_length()))
    assert run.name.endswith("…, run 3")
    assert all("…" in tag for tag in run.tags)
    assert len(run.name) < 80
    assert max(map(len, run.tags)) < 220
