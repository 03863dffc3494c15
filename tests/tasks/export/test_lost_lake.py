"""A lake that is lost while it is written or read: it is said, nothing is taken for gone, and once
it is back all goes on from where it stood.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import Task
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Failed
from pydantic import BaseModel

from blocks import DataLake
from blocks.storage import delta
from blocks.storage.errors import LakeError, LakeUnreachable, Unexpected
from nudgescribe.errors import QuotaExceeded
from tasks.customers.staging import StagingLost, describe, local_copy
from tasks.export import run as tasks
from tasks.journal.entries import Journal, Step
from tasks.policies import is_transient
from tests.conftest import customers
from tests.support.exports import page, whole
from tests.support.http_server import Reply
from tests.support.stores import StoppableStore, store
from tests.tasks.conftest import Local
from tests.tasks.export.conftest import Exporter

__all__ = ["store"]


@pytest.fixture
def lake(store: StoppableStore) -> DataLake:
    return store.new_lake()


def test_operation_reports_unreachable_lake(
    store: StoppableStore, lake: DataLake, tmp_path: Path
) -> None:
    files, local = lake.files, tmp_path / "file"
    local.write_bytes(b"content")

    def read() -> None:
        with files.open("a/file") as file:
            file.read()

    ways: list[Callable[[], object]] = [
        lambda: files.put(local, "a/file"),
        lambda: files.write("a/file", b"content"),
        lambda: files.create("a/other", b"content"),
        lambda: files.read("a/file"),
        lambda: files.get("a/file", tmp_path / "copy"),
        read,
        lambda: files.exists("a/file"),
        lambda: files.list_names("a"),
        lambda: list(files.list_files("a")),
        lambda: files.remove("a/file"),
        lambda: list(files.unfinished_uploads(datetime.now(UTC))),
        lambda: files.abort_upload("a/file", "none"),
    ]
    with store.away():
        for way in ways:
            with pytest.raises(
                LakeUnreachable, match="The lake could not be reached at .* retry"
            ) as caught:
                way()
            assert caught.value.__cause__ is None
            assert "canary" not in str(caught.value)
    for way in ways:
        way()


class Note(BaseModel):
    text: str


def test_staged_files_are_not_missing_when_lake_is_away(
    store: StoppableStore, lake: DataLake, tmp_path: Path
) -> None:
    """A retry must go by what was staged and noted, not find it out anew."""
    local = tmp_path / "list.parquet"
    customers(5).write_parquet(local)
    lake.files.put(local, "staging/list.parquet")
    staged = describe(local, "staging/list.parquet")
    journal = Journal(lake.files, "journals/tests/1")
    journal.create(Step.FOUND, Note(text="first"))
    with store.away():
        with pytest.raises(LakeUnreachable), local_copy(lake, staged):
            pass
        with pytest.raises(LakeUnreachable):
            journal.step(Step.FOUND, Note, lambda: Note(text="second"))
    with local_copy(lake, staged):
        pass
    assert journal.step(Step.FOUND, Note, lambda: Note(text="second")).text == "first"
    lake.files.remove("staging")
    with pytest.raises(StagingLost), local_copy(lake, staged):
        pass


def test_export_continues_when_lake_returns(
    store: StoppableStore,
    lake: DataLake,
    local: Local,
    exporting: Exporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 1)  # a part for each page
    local.lake, ids = lake, [f"{number:02}" for number in range(7)]
    one = exporting([page([each]) for each in ids], rows=7)

    def lost(content: bytes) -> Reply:
        store.stop()
        return whole(content)

    one.service.page_faults[4] = [lost]
    planned = one.plan()
    with pytest.raises(LakeUnreachable):
        one.fetch(planned, downloads=1)
    with pytest.raises(LakeUnreachable):
        one.check(planned)
    store.start()
    assert lake.manifest("C", 2) is None
    planned = one.fetched()
    with store.away(), pytest.raises(LakeUnreachable):
        one.commit(planned)
    assert one.commit(planned).rows == 7
    assert one.ids() == ids
    # What was there before has not been fetched again.
    assert [one.service.calls[f"page {number}"] for number in range(7)] == [1, 1, 1, 1, 2, 1, 1]


def test_commit_continues_when_lake_returns(
    store: StoppableStore,
    lake: DataLake,
    local: Local,
    exporting: Exporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local.lake = lake.model_copy(update={"format": "delta"})
    one = exporting([page(["01"])], rows=1)
    planned, real, options = one.fetched(), delta.commit, delta._storage_options

    def commit(*given: Any) -> None:
        with store.away():
            real(*given)

    def impatient(*given: Any) -> dict[str, str]:
        return {**(options(*given) or {}), "max_retries": "0"}

    with monkeypatch.context() as patched:
        patched.setattr(delta, "_storage_options", impatient)
        patched.setattr(delta, "commit", commit)
        with pytest.raises(LakeUnreachable, match="reached at messages/_delta_log") as caught:
            one.commit(planned)
    assert "http" not in str(caught.value)
    assert one.commit(planned).rows == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(), LakeUnreachable),
        (TimeoutError(), LakeUnreachable),
        (OSError(116, "Stale file handle"), LakeUnreachable),
        (PermissionError("canary"), LakeError),
        (OSError("canary"), LakeError),
        (ValueError("canary"), Unexpected),
        (Exception("canary"), LakeError),
    ],
)
def test_storage_errors_are_told_apart(
    tmp_path: Path, error: Exception, kind: type[Exception]
) -> None:
    files = DataLake(root=str(tmp_path)).files
    with pytest.raises(kind) as caught, files.translate_errors("a/file"):
        raise error
    assert type(caught.value) is kind
    assert "canary" not in str(caught.value)


def put_off(seconds: float) -> QuotaExceeded:
    error = QuotaExceeded("429.")
    error.retry_after = seconds
    return error


def answered(status: int) -> PrefectHTTPStatusError:
    """By Prefect's server."""
    request = httpx.Request("POST", "http://prefect.test")
    response = httpx.Response(status, request=request)
    return PrefectHTTPStatusError("busy", request=request, response=response)


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (LakeUnreachable("lost."), True),
        (LakeError("refused."), False),
        (put_off(5), True),
        (put_off(3600), False),
        (answered(503), True),
        (answered(409), False),
        (httpx.ConnectError("Prefect is away"), True),
    ],
)
def test_task_retries_passing_errors_only(error: Exception, tried: bool) -> None:
    task: Task[..., Any] = tasks.plan_export
    assert is_transient(task, None, Failed(data=error)) is tried  # type: ignore[arg-type]
