"""The dashboard asks for metrics and labels that flow runs send, as Prometheus calls them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.otlp import run_program

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deployments/grafana.json").read_text())
SENDING = """
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prefect import flow
from prometheus_client import generate_latest

metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))

from nudgescribe import telemetry
from tasks.telemetry import measures

telemetry.switch_on()
measures.switch_on()

@flow
def refreshing(campaign_id: str) -> None:
    measures.count_rows({"accepted": 1, "rejected": 1})
    measures.count_segments({"new": 1})
    measures.count_flow_run("campaign-refresh", "completed")
    measures.record_step("upload", 1)
    telemetry.waited("retry", 1)
    telemetry.downloaded(1, "link")
    with telemetry.observe("POST", "/v1/cg") as answered:
        answered(200)

refreshing("C")
print(generate_latest().decode())
"""
GIVEN_BY_GRAFANA = {"le"}


@pytest.fixture(scope="module")
def sent(prefect_server: None) -> dict[str, set[str]]:
    """The labels of each series, by its name."""
    printed = run_program(SENDING).stdout
    return {
        sample.name: {*sample.labels}
        for family in text_string_to_metric_families(printed)
        for sample in family.samples
        if sample.name.startswith("nudgeflow")
    }


def queries() -> list[str]:
    variables = [each["query"] for each in DASHBOARD["templating"]["list"]]
    targets = [each for panel in DASHBOARD["panels"] for each in panel["targets"]]
    return [*variables[1:], *(each["expr"] for each in targets)]


def test_queries_ask_for_series_and_labels_that_are_sent(sent: dict[str, set[str]]) -> None:
    for query in queries():
        series = set(re.findall(r"nudgeflow_\w+", query))
        assert series
        assert series <= sent.keys(), query
        labels = {name for by in re.findall(r"by \((.*?)\)", query) for name in by.split(", ")}
        labels |= {*re.findall(r"(\w+)=", query)} | {*re.findall(r", (\w+)\)$", query)}
        for name in series:
            assert labels <= sent[name], (query, name)


def test_legends_name_labels_of_their_query() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), panel["title"]


def test_every_metric_is_shown_and_documented(sent: dict[str, set[str]]) -> None:
    shown, page = " ".join(queries()), (ROOT / "docs/metrics.md").read_text()
    table = page.partition("## Metrics")[2].partition("## ")[0]
    told = set(re.findall(r"^\| `(nudgeflow\.[\w.]+)` \|", table, re.MULTILINE))
    metrics = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in sent}
    assert {metric for metric in metrics if metric not in shown} == set()
    assert {re.sub("_(seconds|bytes)$", "", metric) for metric in metrics} == {
        name.replace(".", "_") for name in told
    }


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
