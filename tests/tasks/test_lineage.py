"""What a step tells of itself, in this process."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.assets import Asset

from blocks import DataLake
from tasks import lineage
from tasks.lineage import Dataset, told

SOURCE, TARGET = Dataset("crm://sql-crm", "lists/main"), Dataset("nudgescribe://main", "groups/1")


@pytest.fixture(autouse=True)
def sender(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lineage._sender_of.cache_clear()
    for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    yield
    lineage._sender_of.cache_clear()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where events go."""
    file, config = tmp_path / "events.json", tmp_path / "openlineage.yml"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    config.write_text(json.dumps({"transport": transport}))
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(config))
    return file


@flow
def uploading(campaign_id: str | None = None, error: str = "") -> None:
    with told("upload", SOURCE, TARGET) as written:
        if error:
            raise ValueError(error)
        written.rows = 3


def close() -> None:
    sender = lineage._sender_of(lineage.os.getpid())
    assert sender
    sender.close()


def events(file: Path) -> list[dict[str, Any]]:
    close()
    return [*map(json.loads, file.read_text().splitlines())]


def test_step_is_told_from_begin_to_end(prefect_server: None, file: Path) -> None:
    uploading("C")
    began, ended = events(file)
    assert (began["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert began["run"]["runId"] == ended["run"]["runId"]
    assert began["job"] == ended["job"]
    assert (ended["job"]["namespace"], ended["job"]["name"]) == ("nudgeflow", "uploading.C.upload")
    assert began["outputs"][0]["outputFacets"] == {}
    assert ended["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3


def test_step_that_fails_is_told_without_its_error(
    prefect_server: None, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "ours")
    with pytest.raises(ValueError, match="secret"):
        uploading(error="secret")
    _, failed = events(file)
    assert (failed["eventType"], failed["job"]["namespace"]) == ("FAIL", "ours")
    assert failed["job"]["name"] == "uploading.upload"
    assert "secret" not in file.read_text()


@pytest.mark.parametrize("disabled", [True, False])
def test_nothing_is_told_that_nobody_wants(
    prefect_server: None, file: Path, monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    if disabled:
        monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    else:
        monkeypatch.delenv("OPENLINEAGE_CONFIG")
    uploading("C")
    assert not file.exists()
    assert lineage._sender_of.cache_info().currsize == 0


def test_trouble_is_told_once_and_without_its_text(
    prefect_server: None,
    file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (file.parent / "secret").touch()
    transport = {"type": "file", "log_file_path": f"{file.parent}/secret/events.json"}
    (file.parent / "openlineage.yml").write_text(json.dumps({"transport": transport}))
    with caplog.at_level(logging.WARNING, "tasks.lineage"):
        uploading("C")
        uploading("D")
        close()
    (told_of,) = [each.getMessage() for each in caplog.records if each.name == "tasks.lineage"]
    assert "flows go on without" in told_of
    assert "secret" not in told_of


def test_step_goes_on_though_it_cannot_be_told(
    prefect_server: None,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An older version of the library has not all that events need."""
    monkeypatch.setitem(sys.modules, "openlineage.client.event_v2", None)
    with caplog.at_level(logging.WARNING, "tasks.lineage"):
        uploading("C")
        with pytest.raises(ValueError, match="secret"):
            uploading(error="secret")
    texts = [each.getMessage() for each in caplog.records if each.name == "tasks.lineage"]
    assert {*texts} == {"No lineage is told of a step, ModuleNotFoundError; the flow goes on."}


def test_missing_extra_is_told_once(
    prefect_server: None,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    with caplog.at_level(logging.WARNING, "tasks.lineage"):
        uploading("C")
        uploading("D")
    (told_of,) = [each.getMessage() for each in caplog.records if each.name == "tasks.lineage"]
    assert 'pip install "nudgeflow[openlineage]"' in told_of
    assert not file.exists()


def test_datasets_are_named_as_other_tools_name_them(tmp_path: Path) -> None:
    run = Dataset.of(Asset(key="nudgescribe://main/campaigns/C"), 7)
    assert run == Dataset("nudgescribe://main", "campaigns/C", "7")
    local = DataLake(root=str(tmp_path))
    assert Dataset.messages(local, "C", 2) == Dataset(
        "file", f"{tmp_path}/messages/campaign_id=C", "2"
    )
    s3 = DataLake(root="s3://bucket/lake")
    assert Dataset.messages(s3, "C", 2) == Dataset(
        "s3://bucket", "lake/messages/campaign_id=C", "2"
    )
