"""The server is the real thing: it refuses what S3 refuses."""

import httpx
import pytest
import s3fs

from tests.s3.ceph import CONFIGURATION, Server, radosgw


def test_link_works_while_it_is_signed_and_valid(s3: s3fs.S3FileSystem, bucket: str) -> None:
    s3.pipe({f"{bucket}/mine": b"mine", f"{bucket}/yours": b"yours"})
    link = s3.sign(f"{bucket}/mine", expiration=60)
    assert httpx.get(link).content == b"mine"
    tampered = httpx.get(link.replace("/mine?", "/yours?"))
    assert (tampered.status_code, "SignatureDoesNotMatch" in tampered.text) == (403, True)
    assert httpx.put(link, content=b"theirs").status_code == 403
    expired = httpx.get(s3.sign(f"{bucket}/mine", expiration=-1))
    assert (expired.status_code, "AccessDenied" in expired.text) == (403, True)
    assert httpx.get(link.partition("?")[0]).status_code == 403


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_credentials_of_a_stranger_are_refused(ceph: Server, bucket: str, wrong: str) -> None:
    stranger = s3fs.S3FileSystem(**{**ceph.storage_options, wrong: "wrong"})
    with pytest.raises(PermissionError):
        stranger.ls(bucket)
    with pytest.raises(PermissionError):
        stranger.pipe_file(f"{bucket}/key", b"text")


def test_gateway_that_fails_to_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.s3.ceph.CONFIGURATION", CONFIGURATION + "rgw_zone = nowhere\n")
    with pytest.raises(RuntimeError, match=r"radosgw-admin ended with 5(.|\n)*name=nowhere"):
        with radosgw():
            pass


def test_missing_programs_are_named_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="apt-get install ceph-base ceph-common ceph-mon"):
        with radosgw():
            pass
