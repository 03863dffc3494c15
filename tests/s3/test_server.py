"""The server is the real thing: it refuses what S3 refuses."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import s3fs
from botocore.exceptions import ClientError

from tests.s3.ceph import CONFIGURATION, Server, radosgw

PART = b"x" * 5 * 2**20


@pytest.fixture
def s3(ceph: Server) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(**ceph.storage_options)


def code(error: BaseException | None) -> str:
    """What S3 called it: to s3fs a failed precondition is one of many invalid arguments."""
    assert isinstance(error, OSError)
    assert isinstance(error.__cause__, ClientError)
    return error.__cause__.response["Error"]["Code"]


def test_what_is_put_is_got(s3: s3fs.S3FileSystem, bucket: str) -> None:
    s3.pipe_file(f"{bucket}/small", b"text")
    s3.pipe_file(f"{bucket}/large", 2 * PART + b"end", chunksize=len(PART))
    assert s3.cat_file(f"{bucket}/small") == b"text"
    assert s3.cat_file(f"{bucket}/large", start=-5) == b"xxend"
    assert s3.info(f"{bucket}/large")["ETag"].endswith('-3"')
    assert s3.ls(bucket, detail=False) == [f"{bucket}/large", f"{bucket}/small"]


def test_an_object_is_created_once(s3: s3fs.S3FileSystem, bucket: str) -> None:
    s3.pipe_file(f"{bucket}/key", b"first", mode="create")
    with pytest.raises(OSError, match="Errno 22") as second:
        s3.pipe_file(f"{bucket}/key", b"second", mode="create")
    assert code(second.value) == "PreconditionFailed"
    assert s3.cat_file(f"{bucket}/key") == b"first"


def test_of_many_creators_one_wins(s3: s3fs.S3FileSystem, bucket: str) -> None:
    def create(number: int) -> OSError | None:
        try:
            s3.pipe_file(f"{bucket}/key", b"%d" % number, mode="create")
        except OSError as error:
            return error
        return None

    with ThreadPoolExecutor(8) as threads:
        errors = [*threads.map(create, range(8))]
    winner = errors.index(None)
    losers = errors[:winner] + errors[winner + 1 :]
    assert [code(error) for error in losers] == ["PreconditionFailed"] * 7
    assert s3.cat_file(f"{bucket}/key") == b"%d" % winner


def test_links_work_while_they_are_signed_and_valid(s3: s3fs.S3FileSystem, bucket: str) -> None:
    s3.pipe({f"{bucket}/mine": b"mine", f"{bucket}/yours": b"yours"})
    link = s3.sign(f"{bucket}/mine", expiration=60)
    assert httpx.get(link).content == b"mine"
    tampered = httpx.get(link.replace("/mine?", "/yours?"))
    assert (tampered.status_code, "SignatureDoesNotMatch" in tampered.text) == (403, True)
    assert httpx.put(link, content=b"theirs").status_code == 403
    expired = httpx.get(s3.sign(f"{bucket}/mine", expiration=-1))
    assert (expired.status_code, "AccessDenied" in expired.text) == (403, True)
    assert httpx.get(link.partition("?")[0]).status_code == 403


def test_an_upload_shows_when_it_is_complete(s3: s3fs.S3FileSystem, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "key"}
    upload = s3.call_s3("create_multipart_upload", **where)["UploadId"]
    s3.call_s3("upload_part", **where, UploadId=upload, PartNumber=1, Body=PART)
    assert s3.ls(bucket, refresh=True) == []
    assert not s3.exists(f"{bucket}/key")
    assert [one["UploadId"] for one in s3.list_multipart_uploads(bucket)] == [upload]
    s3.call_s3("abort_multipart_upload", **where, UploadId=upload)
    assert s3.list_multipart_uploads(bucket) == []


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_strangers_are_refused(ceph: Server, bucket: str, wrong: str) -> None:
    stranger = s3fs.S3FileSystem(**{**ceph.storage_options, wrong: "wrong"})
    with pytest.raises(PermissionError):
        stranger.ls(bucket)
    with pytest.raises(PermissionError):
        stranger.pipe_file(f"{bucket}/key", b"text")


def test_the_gateway_goes_and_comes_back(ceph: Server) -> None:
    with radosgw() as other:
        assert other.endpoint_url != ceph.endpoint_url
        s3 = s3fs.S3FileSystem(**other.storage_options)
        s3.mkdir("bucket")
        s3.pipe_file("bucket/key", b"text")
        other.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(other.endpoint_url)
        assert ceph.answers()
        other.start()
        assert s3.cat_file("bucket/key") == b"text"
        folder = other.cluster.folder
    assert not folder.exists()


def test_a_start_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.s3.ceph.CONFIGURATION", CONFIGURATION + "rgw_zone = nowhere\n")
    with pytest.raises(RuntimeError, match=r"radosgw-admin ended with 5(.|\n)*name=nowhere"):
        with radosgw():
            pass


def test_missing_programs_are_named_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="apt-get install ceph-base ceph-common ceph-mon"):
        with radosgw():
            pass
