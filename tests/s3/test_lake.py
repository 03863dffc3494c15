"""The lake on a real S3: what is promised of it holds where others write and servers go away."""

import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from json import dumps
from pathlib import Path
from threading import Barrier, Event
from time import monotonic, sleep
from typing import Any

import pytest
import s3fs
from deltalake import DeltaTable
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.logging import disable_run_logger

from benchmarks.pages_server import CAMPAIGN
from blocks import DataLake
from blocks.storage.errors import LakeUnreachable
from blocks.storage.files import UPLOAD_BYTES, AlreadyThere, Files, LakeError
from blocks.storage.manifest import Format, Manifest, manifest_name, run_folder
from flows.export import export_messages
from tasks.export import run as tasks
from tasks.export.download import ExportRef
from tasks.export.ledger import Ledger
from tasks.export.run import RunInLake, RunTaken
from tests.s3 import campaign
from tests.s3 import ceph as ceph_server
from tests.s3.ceph import Server, radosgw
from tests.s3.conftest import lake_in
from tests.support import stores
from tests.support.deployed import flow_run, retry
from tests.support.exports import page, whole
from tests.support.http_server import Reply, serving
from tests.support.lakes import check_paths, write_page, write_run

ROOT = Path(__file__).parents[2]
FORMATS: list[Format] = ["parquet", "csv", "csv.zst", "delta"]
WRITERS = 8
ROUNDS = 6
SECONDS = 30.0


# ---- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(1000, None), (2 * UPLOAD_BYTES + 1, 3)],
    ids=["at once", "in pieces"],
)
def test_file_that_was_put_is_read_back_as_it_was(
    lake: DataLake, s3: s3fs.S3FileSystem, tmp_path: Path, size: int, pieces: int | None
) -> None:
    files, file, copy = lake.files, tmp_path / "file", tmp_path / "copy"
    file.write_bytes(os.urandom(size))
    files.put(file, "a/b/c")
    files.get("a/b/c", copy)
    assert copy.read_bytes() == files.read("a/b/c") == file.read_bytes()
    assert files.list_names("a/b") == ["c"]
    ((path, modified, _),) = files.list_files("a")
    assert path == "a/b/c"
    assert abs(datetime.now(UTC) - modified) < timedelta(minutes=1)
    tag = s3.info(files.fs_path("a/b/c"))["ETag"].strip('"')
    assert tag.partition("-")[2] == (str(pieces) if pieces else "")
    files.remove("a")
    assert not files.exists("a/b/c")
    assert files.list_names("a/b") == []


def test_reader_sees_whole_file_while_it_is_replaced(lake: DataLake) -> None:
    versions = [bytes([number]) * (number + 1) * 3 * 2**20 for number in range(12)]
    lake.files.write("key", versions[0])
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(lambda: [lake.files.write("key", one) for one in versions])
        seen: set[bytes] = set()
        while not writing.done():
            seen.add(lake.files.read("key"))
    writing.result()
    assert lake.files.read("key") == versions[-1]
    assert len(seen) > 1
    assert seen <= {*versions}


def test_manifest_is_created_by_one_of_many_at_once(lake: DataLake) -> None:
    start = Barrier(WRITERS)

    def create(number: int) -> bool:
        files = lake.model_copy().files
        start.wait()
        try:
            files.create("run/_manifest-00000.json", b"%d" % number)
        except AlreadyThere:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as threads:
        won = [*threads.map(create, range(WRITERS))]
    assert won.count(True) == 1
    assert lake.files.read("run/_manifest-00000.json") == b"%d" % won.index(True)


@pytest.mark.parametrize("name", ["crm[1]", "eu*", "a?b#c", "a%20b", "my läke 🎉", "a+b&c=d"])
def test_path_is_no_pattern(ceph: Server, bucket: str, name: str) -> None:
    check_paths(f"s3://{bucket}", ceph.storage_options, name, name, name)


def test_probe_of_creation_leaves_nothing(lake: DataLake) -> None:
    lake.files.create("a/x", b"1")
    assert [file.path for file in lake.files.list_files("")] == ["a/x"]


def test_object_that_stands_for_a_folder_is_no_file(
    lake: DataLake, bucket: str, s3: s3fs.S3FileSystem
) -> None:
    for key in ("lake/", "lake/messages/", "lake/messages/campaign_id=C/run_number=7/"):
        s3.call_s3("put_object", Bucket=bucket, Key=key, Body=b"")
    assert lake.runs().empty
    write_run(lake, "C", 1, {"01": "a"})
    assert lake.read("C", kind="polars").shape == (1, 2)
    assert lake.files.list_names("") == ["messages"]
    lake.files.remove("messages")
    assert [*s3.find(bucket)] == [f"{bucket}/lake/"]


@pytest.mark.parametrize(
    ("root", "options", "said"),
    [
        ("s3://missing-bucket/lake", {}, "NoSuchBucket, there is no such bucket"),
        ("s3://{bucket}/lake", {"key": "nobody"}, "InvalidAccessKeyId, the key or the secret"),
        ("s3://{bucket}/lake", {"secret": "wrong"}, "SignatureDoesNotMatch, the key or the sec"),
    ],
)
def test_lake_error_tells_refusal_of_gateway(
    ceph: Server, bucket: str, root: str, options: dict[str, str], said: str
) -> None:
    files = lake_in(root.format(bucket=bucket), {**ceph.storage_options, **options}).files
    with pytest.raises(LakeError, match=said):
        files.write("x", b"1")
    with pytest.raises(LakeError, match=said):
        files.list_names("x")


# ---- uploads that never ended -----------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from blocks import DataLake
from s3fs import S3FileSystem

call, parts = S3FileSystem._call_s3, []

async def killed_at_the_third(self, method, *arguments, **options):
    if method == "upload_part":
        parts.append(method)
        if len(parts) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return await call(self, method, *arguments, **options)

S3FileSystem._call_s3 = killed_at_the_third
lake = DataLake.model_validate(json.loads(sys.stdin.read()))
draft = lake.files.draft("a/part")
draft.file.write_bytes(bytes(int(sys.argv[1])))
draft.publish()
"""


def uploads(s3: s3fs.S3FileSystem, files: Files) -> dict[str, datetime]:
    """When the uploads that have not ended were begun, by their place in the bucket."""
    bucket = files.fs_path("").partition("/")[0]
    return {one["Key"]: one["Initiated"] for one in s3.list_multipart_uploads(bucket)}


def begin_upload(s3: s3fs.S3FileSystem, bucket: str, key: str) -> datetime:
    """Begins an upload in pieces and says when that was."""
    s3.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    (begun,) = (one["Initiated"] for one in s3.list_multipart_uploads(bucket) if one["Key"] == key)
    return begun


def abort(files: Files, before: datetime) -> int:
    """Aborts the lake's uploads that were begun before a time and says how many these are."""
    old = [*files.unfinished_uploads(before)]
    for each in old:
        files.abort_upload(each.path, each.upload_id)
    return len(old)


def test_upload_that_was_killed_shows_nowhere_and_can_be_aborted(
    ceph: Server, bucket: str, s3: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    # One piece after the other: two have been sent when the process dies.
    options = {**ceph.storage_options, "max_concurrency": 1}
    described = {"root": f"s3://{bucket}/lake", "storage_options": options}
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(4 * UPLOAD_BYTES)],
        input=dumps(described).encode(),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    files = lake_in(**described).files
    assert files.list_names("a") == []
    assert list(files.list_files("a")) == []
    assert not files.exists("a/part")
    younger = begin_upload(s3, bucket, "lake/a/younger")
    old = uploads(s3, files)
    assert {*old} == {"lake/a/part", "lake/a/younger"}
    assert old["lake/a/part"] < younger
    assert abort(files, old["lake/a/part"]) == 0
    assert abort(files, younger) == 1
    assert {*uploads(s3, files)} == {"lake/a/younger"}
    # Those of neighbours are theirs.
    for key in ("lake-of-others/a", "other"):
        begin_upload(s3, bucket, key)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert abort(files, tomorrow) == 1
    assert {*uploads(s3, files)} == {"lake-of-others/a", "other"}
    assert abort(lake_in(f"s3://{bucket}", ceph.storage_options).files, tomorrow) == 2


# ---- runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
def test_runs_are_read_as_they_were_written(lake: DataLake, file_format: Format) -> None:
    lake = lake.model_copy(update={"format": file_format})
    pages = [{"01": 'say "hi"\r\n', "02": "å, 🎉"}, {"03": ""}]
    first = write_run(lake, "C/1", 1, *pages)
    write_run(lake, "C/1", 2, {"01": "new"})
    assert lake.manifest("C/1", 1) == first
    assert lake.read("C/1", 1, "polars").rows() == [*pages[0].items(), *pages[1].items()]
    assert lake.read("C/1", kind="polars").rows() == [("01", "new")]
    assert lake.runs()[["run_number", "rows", "format"]].to_numpy().tolist() == [
        [1, 3, file_format],
        [2, 1, file_format],
    ]


def delta_rows(ceph: Server, lake: DataLake, campaign_id: str = "C/1") -> dict[int, list[str]]:
    """The messages by run, as Delta's own reader sees them."""
    storage = {
        "AWS_ACCESS_KEY_ID": ceph.key,
        "AWS_SECRET_ACCESS_KEY": ceph.secret,
        "AWS_ENDPOINT_URL": ceph.endpoint_url,
        "AWS_ALLOW_HTTP": "true",
    }
    table = DeltaTable(lake.files.url("messages"), storage_options=storage).to_pyarrow_table()
    found: dict[int, list[str]] = {}
    for row in table.sort_by(
        [("run_number", "ascending"), ("customer_id", "ascending")]
    ).to_pylist():
        assert row["campaign_id"] == campaign_id
        found.setdefault(row["run_number"], []).append(row["message"])
    return found


def test_runs_of_a_delta_table_leave_each_other_alone(ceph: Server, lake: DataLake) -> None:
    lake = lake.model_copy(update={"format": "delta"})
    start = Barrier(WRITERS // 2)

    def write(number: int) -> Manifest:
        own = lake.model_copy()
        start.wait()
        return write_run(own, "C/1", number, {"01": f"{number}"}, {"02": "a", "03": "b"})

    with ThreadPoolExecutor(start.parties) as threads:
        list(threads.map(write, range(start.parties)))
    runs = {number: [f"{number}", "a", "b"] for number in range(start.parties)}
    assert delta_rows(ceph, lake) == runs
    write_run(lake, "C/1", 2, {"01": "D", "02": "e"})
    assert delta_rows(ceph, lake) == {**runs, 2: ["D", "e"]}


# ---- two writers ------------------------------------------------------------------------------


@pytest.fixture
def no_run() -> Iterator[None]:
    """Tasks outside a flow run have none to log to."""
    with disable_run_logger():
        yield


def fetched(lake: DataLake, run_number: int, writer: str) -> ExportRef:
    """An export of one writer that lies in the lake and waits to be committed."""
    ref = ExportRef(
        campaign_id="C/1",
        run_number=run_number,
        customer_group_id=None,
        job_uid=None,
        past=False,
        pages=1,
        rows=1,
        writer=writer,
        staging=f"staging/{writer}-{run_number}",
        generation=0,
        done=False,
    )
    with lake.part_writer(ref.campaign_id, run_number, writer) as parts:
        write_page(parts, 0, page([writer]))
        batch = parts.finish()
    assert batch is not None
    Ledger(lake.files, ref.staging).add(batch)
    return ref


@pytest.mark.parametrize("file_format", ["parquet", "delta"])
def test_run_is_written_by_one_of_two_at_once(
    prefect_server: None,
    no_run: None,
    ceph: Server,
    lake: DataLake,
    monkeypatch: pytest.MonkeyPatch,
    file_format: Format,
) -> None:
    lake = lake.model_copy(update={"format": file_format})
    together, one_is_done, real = Barrier(2), Event(), tasks._manifest

    def manifest(store: DataLake, export: ExportRef, ledger: Ledger) -> Manifest:
        # Both have found none yet, and create theirs: in half of the rounds at once, in the others
        # when the other one has committed.
        made = real(store, export, ledger)
        if together.wait(SECONDS) and export.run_number % 2:
            assert one_is_done.wait(SECONDS)
        return made

    def commit(ref: ExportRef) -> RunInLake | RunTaken:
        try:
            return tasks.commit_run.fn(ref, lake)
        except RunTaken as taken:
            return taken
        finally:
            one_is_done.set()

    monkeypatch.setattr(tasks, "_manifest", manifest)
    winners: dict[int, list[str]] = {}
    for number in range(ROUNDS):
        one_is_done.clear()
        refs = [fetched(lake, number, writer) for writer in ("one", "other")]
        with ThreadPoolExecutor(2) as threads:
            done = [*threads.map(commit, refs)]
        (winner,) = (
            ref.writer for ref, one in zip(refs, done, strict=True) if isinstance(one, RunInLake)
        )
        assert sum(isinstance(one, RunTaken) for one in done) == 1
        committed = lake.manifest("C/1", number)
        assert committed is not None
        assert committed.writer == winner
        assert lake.read("C/1", number, "polars").rows() == [(winner, f"to {winner}")]
        winners[number] = [f"to {winner}"]
        names = lake.files.list_names(run_folder("C/1", number))
        assert [name for name in names if name.startswith("_")] == [manifest_name(0)]
    if file_format == "delta":
        assert delta_rows(ceph, lake) == winners


@pytest.mark.parametrize("campaign_id", ["日" * 100, "é b" * 100, "x" * 300])
def test_delta_table_has_campaign_of_long_id(
    ceph: Server, lake: DataLake, campaign_id: str
) -> None:
    lake = lake.model_copy(update={"format": "delta"})
    write_run(lake, campaign_id, 1, {"01": "a"})
    assert lake.read(campaign_id, kind="polars").rows() == [("01", "a")]
    assert delta_rows(ceph, lake, campaign_id) == {1: ["a"]}


# ---- encryption -------------------------------------------------------------------------------


def seals(s3: s3fs.S3FileSystem, bucket: str) -> dict[str, tuple[str | None, str | None]]:
    """How S3 says each object is encrypted, and by which key."""
    heads = {
        place: s3.call_s3("head_object", Bucket=bucket, Key=place.partition("/")[2])
        for place in s3.find(bucket)
    }
    return {
        place: (head.get("ServerSideEncryption"), head.get("SSEKMSKeyId"))
        for place, head in heads.items()
    }


def test_object_is_encrypted_with_the_key_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Ceph's key management for tests, and keys over plain HTTP, on the loopback.
    keys = {
        "rgw_crypt_require_ssl": "false",
        "rgw_crypt_s3_kms_backend": "testing",
        "rgw_crypt_s3_kms_encryption_keys": f"lake={b64encode(bytes(32)).decode()}",
    }
    lines = "".join(f"{name} = {value}\n" for name, value in keys.items())
    monkeypatch.setattr(ceph_server, "CONFIGURATION", ceph_server.CONFIGURATION + lines)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(2 * UPLOAD_BYTES))
    with radosgw() as server:
        s3 = s3fs.S3FileSystem(**server.storage_options)
        s3.mkdir("bucket")
        sealed = {"encryption": "aws:kms", "kms_key": "lake", "format": "delta"}
        lake = lake_in("s3://bucket/lake", server.storage_options, **sealed)
        write_run(lake, "C/1", 1, {"01": "a"})
        lake.files.put(large, "large")
        lake.files.put(large, "staging/R/accepted.parquet", private=True)
        lake.files.write("quarantine/C/R.parquet", b"row", private=True)
        lake.files.create("refreshes/C/1.json", b"{}", private=True)
        assert lake.read("C/1", 1, "polars").rows() == [("01", "a")]
        assert lake.files.read("large") == large.read_bytes()
        found = seals(s3, "bucket")
        # Part, manifest, pointer, Delta's log of two; the large one, and what only we may read.
        assert len(found) == 6 + 3, found
        assert {*found.values()} == {("aws:kms", "lake")}
        unknown = lake_in("s3://bucket", server.storage_options, **{**sealed, "kms_key": "none"})
        with pytest.raises(LakeError, match="The lake refuses key: "):
            unknown.files.write("key", b"")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The options of an S3 that encrypts with keys of its own, as Ceph does from 17 on only."""
    region = {"region_name": "eu-west-1"}
    with stores.s3() as url:
        yield {"key": "key", "secret": "secret", "endpoint_url": url, "client_kwargs": region}


def test_encryption_with_the_stores_own_keys_is_asked_for(aws: dict[str, Any]) -> None:
    s3 = s3fs.S3FileSystem(**aws)
    s3.mkdir("bucket")
    lake = lake_in("s3://bucket/lake", aws, encryption="AES256", format="delta")
    write_run(lake, "C/1", 1, {"01": "a"})
    found = seals(s3, "bucket")
    assert len(found) == 5, found
    assert {*found.values()} == {("AES256", None)}


# ---- S3 away ----------------------------------------------------------------------------------


def test_export_retried_after_s3_was_away_fetches_missing_pages(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROWS_A_CHUNK", 2)
    for task in (tasks.plan_export, tasks.fetch_chunk):
        monkeypatch.setattr(task, "retry_delay_seconds", [0.1] * 3)
    pages = 12
    with radosgw() as server, serving(campaign.Published(pages, 2)) as export:
        options = server.storage_options
        impatient = {**options["config_kwargs"], "retries": {"max_attempts": 0}}
        s3fs.S3FileSystem(**options).mkdir("bucket")
        lake = lake_in("s3://bucket/lake", {**options, "config_kwargs": impatient})
        blocks = campaign.save("s3-away", export, lake)

        def away(content: bytes) -> Reply:
            end = monotonic() + 60
            while not any(path.endswith(".json") for path, *_ in lake.files.list_files("staging")):
                assert monotonic() < end
                sleep(0.05)
            server.stop()
            return whole(content)

        export.page_faults[pages - 3] = [away]
        with pytest.raises(LakeUnreachable, match="The lake could not be reached at "):
            campaign.fetch(blocks, export_minutes=0.01)
        server.start()
        with get_client(sync_client=True) as client:
            (run,) = (
                each
                for each in client.read_flow_runs(limit=200)
                if each.parameters.get("lake") == lake.to_reference()
            )
        (writer,) = lake.files.list_names(f"staging/{run.id}")
        there = Ledger(lake.files, f"staging/{run.id}/{writer}").pages()
        assert 0 < len(there) < pages
        assert lake.manifest(CAMPAIGN, 1) is None
        before = export.calls.copy()
        retry(run.id)
        again: Any = run_flow(export_messages, flow_run=flow_run(run.id), parameters=run.parameters)
        assert [each.rows for each in again] == [2 * pages]
        calls = export.calls - before
        assert {number for number in range(pages) if calls[f"page {number}"]} == (
            {*range(pages)} - there
        )
        assert campaign.is_whole(lake, 2 * pages)
    assert not server.cluster.folder.exists()
