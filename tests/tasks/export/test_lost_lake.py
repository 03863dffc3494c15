"""A lake that is lost while it is written or read: it is said, nothing is taken for gone, and once
it is back all goes on from where it stood.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.session import Session
from moto.server import ThreadedMotoServer
from prefect import Task
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Failed
from pydantic import BaseModel

from blocks import DataLake
from blocks.storage.errors import LakeError, LakeUnreachable
from blocks.storage.files import NotInLake
from nudgescribe.errors import QuotaExceeded, Retryable
from tasks.customers.staging import StagingLost, describe, load_or_compute, local_copy
from tasks.export import run as tasks
from tasks.policies import is_transient
from tests.conftest import customers
from tests.support.exports import Export, page, whole
from tests.support.http_server import Reply
from tests.tasks.conftest import Local
from tests.tasks.export import test_export
from tests.tasks.export.test_export import Exporting, Serve, ids

no_waiting, serve = test_export.no_waiting, test_export.serve
exporting = test_export.exporting

KEYS = {"key": "canary-key", "secret": "canary-secret"}


class Store:
    """An S3 server in this process; what it holds stays while it is away."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = Store()
    client = Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=store.url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="lakes")
    yield store
    store.stop()


@pytest.fixture
def lake(store: Store, request: pytest.FixtureRequest) -> DataLake:
    """Without the library's own patience."""
    options = {
        **KEYS,
        "endpoint_url": store.url,
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    root = f"s3://lakes/{abs(hash(request.node.name))}"
    return DataLake.model_validate({"root": root, "storage_options": options})


def test_every_operation_reports_unreachable_lake(
    store: Store, lake: DataLake, tmp_path: Path
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
            with pytest.raises(LakeUnreachable, match="The lake was lost at .* retry") as caught:
                way()
            assert caught.value.__cause__ is None
            assert "canary" not in str(caught.value)
    for way in ways:
        way()


class Note(BaseModel):
    text: str


def test_staged_files_are_not_missing_when_lake_is_away(
    store: Store, lake: DataLake, tmp_path: Path
) -> None:
    """A retry must go by what was staged and noted, not find it out anew."""
    local = tmp_path / "list.parquet"
    customers(5).write_parquet(local)
    lake.files.put(local, "staging/list.parquet")
    staged = describe(local, "staging/list.parquet")
    assert load_or_compute(lake, "staging/note", Note, lambda: Note(text="first")).text == "first"
    with store.away():
        with pytest.raises(LakeUnreachable), local_copy(lake, staged):
            pass
        with pytest.raises(LakeUnreachable):
            load_or_compute(lake, "staging/note", Note, lambda: Note(text="second"))
    with local_copy(lake, staged):
        pass
    assert load_or_compute(lake, "staging/note", Note, lambda: Note(text="second")).text == "first"
    lake.files.remove("staging")
    with pytest.raises(StagingLost), local_copy(lake, staged):
        pass
    with pytest.raises(NotInLake):
        lake.files.read("staging/note")


def test_export_continues_when_lake_returns(
    store: Store,
    lake: DataLake,
    local: Local,
    serve: Serve,
    exporting: Callable[[int], Exporting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 1)  # a part for each page
    local.lake = lake
    export = serve(Export([page([f"{number:02}"]) for number in range(7)]))

    def lost(content: bytes) -> Reply:
        store.stop()
        return whole(content)

    export.page_faults[4] = [lost]
    one = exporting(7)
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
    assert ids(lake) == [f"{number:02}" for number in range(7)]
    # What was there before has not been fetched again.
    assert [export.calls[f"page {number}"] for number in range(7)] == [1, 1, 1, 1, 2, 1, 1]


def test_commit_continues_when_lake_returns(
    store: Store,
    lake: DataLake,
    local: Local,
    serve: Serve,
    exporting: Callable[[int], Exporting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local.lake = lake.model_copy(update={"format": "delta"})
    serve(Export([page(["01"])]))
    one = exporting(1)
    planned, real = one.fetched(), tasks.delta.commit

    def commit(*given: Any) -> None:
        with store.away():
            real(*given)

    monkeypatch.setattr(tasks.delta, "commit", commit)
    with pytest.raises(LakeUnreachable, match="lost at messages/_delta_log") as caught:
        one.commit(planned)
    assert "http" not in str(caught.value)
    monkeypatch.setattr(tasks.delta, "commit", real)
    assert one.commit(planned).rows == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(), LakeUnreachable),
        (TimeoutError(), LakeUnreachable),
        (OSError(116, "Stale file handle"), LakeUnreachable),
        (PermissionError("canary"), LakeError),
        (OSError("compressed canary"), OSError),
        (ValueError("canary"), ValueError),
    ],
)
def test_storage_errors_are_told_apart(
    tmp_path: Path, error: Exception, kind: type[Exception]
) -> None:
    files = DataLake(root=str(tmp_path)).files
    with pytest.raises(kind) as caught, files.translate_errors("a/file"):
        raise error
    assert type(caught.value) is kind
    assert not (isinstance(caught.value, LakeError) and "canary" in str(caught.value))


def test_task_retries_passing_errors_only() -> None:
    def tried(error: Exception) -> bool:
        task: Task[..., Any] = tasks.plan_export
        return is_transient(task, None, Failed(data=error))  # type: ignore[arg-type]

    def put_off(seconds: float) -> Retryable:
        error = QuotaExceeded("429.")
        error.retry_after = seconds
        return error

    assert tried(LakeUnreachable("lost."))
    assert tried(put_off(5))
    assert not tried(put_off(3600))
    assert not tried(LakeError("refused."))
    for status, again in ((503, True), (409, False)):
        request = httpx.Request("POST", "http://prefect.test")
        response = httpx.Response(status, request=request)
        busy = PrefectHTTPStatusError("busy", request=request, response=response)
        assert tried(busy) is again
    assert tried(httpx.ConnectError("Prefect is away"))
