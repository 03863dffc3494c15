"""How large an upload is: in bytes and rows, and when the service says that it is too large."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import polars as pl
import pyarrow as pa
import pytest

from blocks.storage import parquet
from blocks.storage.parquet import read_frames, text_schema, write_parquet
from sandbox import seed
from sandbox.settings import Settings
from tasks.customers import upload
from tasks.customers.sync import update_customers
from tasks.customers.upload import (
    GroupRef,
    RowTooLarge,
    UploadIncomplete,
    find_or_create_group,
    send,
)
from tasks.journal.refresh import Refresh
from tests.conftest import Company, Through, customers, serving
from tests.support.response_tamperer import ResponseTamperer, answering
from tests.tasks.conftest import Local

UPLOAD = "/v1/customer/check"
DONE = dict.fromkeys(("total", "accepted", "rejected"), 0) | {"job_uid": "j", "errors": []}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """A company of a service that takes 4,000 bytes in one upload."""
    data = tmp_path_factory.mktemp("narrow")
    with serving(Settings(data=data, largest_file=4000)) as sandbox:
        yield Company(sandbox, seed.seed(sandbox.context, 10))


def batches(*frames: pl.DataFrame) -> list[pa.RecordBatch]:
    return [batch for frame in frames for batch in frame.to_arrow().to_batches()]


@pytest.fixture
def group(narrow: Company) -> GroupRef:
    with narrow.client() as client:
        made = client.create_group(narrow.seeded.workspace_id, str(uuid4())).customer_group_id
    return GroupRef(
        workspace_id=narrow.seeded.workspace_id, customer_group_id=made, name="Ours", size=0
    )


def test_upload_of_wide_rows_is_parted_by_bytes(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((parquet, "BYTES_AT_ONCE"), (upload, "BYTES_SENT")):
        monkeypatch.setattr(module, name, 100_000)
    wide = pl.DataFrame({f"field_{number}": ["x" * 50] * 1000 for number in range(50)})
    skewed = wide.with_columns(field_0=pl.Series(["x" * 150_000, *["x"] * 999]))
    write_parquet(tmp_path / "wide", text_schema(wide.columns), [wide])
    group = GroupRef(workspace_id="w", customer_group_id="g", name="n", size=0)
    transport = answering(json.dumps({**DONE, "status": "completed"}))
    with local.account.get_client(transport=transport) as client:
        assert max(frame.height for frame in read_frames(tmp_path / "wide")) <= 40
        assert send(client, group, batches(wide, skewed), 2000)
    sizes = [int(r.headers["content-length"]) for r in transport.requests if r.url.path == UPLOAD]
    assert sorted(sizes)[-1] > 150_000 > 101_000 > sorted(sizes)[-2]
    assert len(sizes) < 100


def test_sync_parts_uploads_by_bytes(
    company: Company,
    local: Local,
    refresh: Refresh,
    through: Through,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upload, "BYTES_SENT", 2000)
    transport = through(ResponseTamperer())
    group = find_or_create_group.fn(local.account, company.seeded.workspace_id, "Daily")
    listed = local.staged(customers(100))
    done = update_customers.fn(local.account, group, listed, "customer_id", local.lake, refresh)
    assert done.added == 100
    sizes = [int(r.headers["content-length"]) for r in transport.requests if r.url.path == UPLOAD]
    assert 3 < len(sizes) < 20
    assert max(sizes) < 3000


def test_upload_that_is_too_large_is_halved(narrow: Company, group: GroupRef) -> None:
    transport = ResponseTamperer()
    with narrow.client(transport=transport) as client:
        assert send(client, group, batches(customers(200).head(100), customers(200).tail(100)), 200)
        assert client.count_customers(group.workspace_id, group.customer_group_id).total == 200
    sizes = [int(r.headers["content-length"]) for r in transport.requests if r.url.path == UPLOAD]
    assert len([size for size in sizes if size > 4000]) <= 3


def test_row_keeps_its_number_when_uploads_are_halved(narrow: Company, group: GroupRef) -> None:
    with narrow.client() as client, pytest.raises(UploadIncomplete, match=r"row 90 \w+ \(\w+\)"):
        send(client, group, batches(customers(100, invalid_every=90)), 100)


@pytest.mark.parametrize("body", [None, httpx.Response(413, content=b"<html>nginx</html>")])
def test_row_that_is_too_large_is_named(
    narrow: Company, group: GroupRef, body: httpx.Response | None
) -> None:
    long = pl.when(pl.int_range(pl.len()) == 41).then(pl.lit("s3cret" * 1000)).otherwise("plan")
    listed = customers(50).with_columns(plan=long)
    transport = ResponseTamperer({UPLOAD: [body]} if body else {})
    with narrow.client(transport=transport) as client:
        with pytest.raises(RowTooLarge, match="Accepted row 42: .* answered 413") as caught:
            send(client, group, batches(listed), 50)
    assert "s3cret" not in str(caught.value)
