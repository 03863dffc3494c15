"""Exported pages on each file system: S3 with links of its own, others that sign nothing."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import s3fs
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from nudgescribe import rfc4180
from sandbox import seed
from sandbox.data.page_files import PageFiles, RunFolder, page_name
from sandbox.settings import Settings
from tests.conftest import Company, customers, serving
from tests.sandbox.conftest import new_group
from tests.support import stores
from tests.support.exports import downloaded


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server that the environment names."""
    with stores.s3() as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", url)
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()  # Its key leaves out what the environment says.
        s3fs.S3FileSystem().mkdir("exports")
        yield "s3://exports/pages"


@pytest.fixture(params=["s3", "memory", "data folder"])
def company(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Company]:
    """A company whose pages are on one of the file systems."""
    urls = {"memory": "memory://pages", "data folder": None}
    url = request.getfixturevalue("bucket") if request.param == "s3" else urls[request.param]
    with serving(Settings(data=tmp_path, exports=url, rows_per_file=100)) as service:
        yield Company(service, seed.seed(service.context, 250))
    MemoryFileSystem.store.clear()


def test_page_files_are_written_linked_replaced_and_archived(company: Company) -> None:
    campaign = company.seeded.campaign_id
    with company.client() as client:
        assert client.count_message_pages(campaign) == 3
        assert downloaded(client, campaign).decode() == client.fetch_csv(campaign, 0)
        first = client.fetch_csv(campaign, 0)
        group = new_group(client, company.seeded, customers(120))
        client.initiate_rerun(campaign, group)
        company.settle(client)
        company.sandbox.approve(campaign)
        client.publish(campaign)
        while client.count_message_pages(campaign) != 2:
            pass
        assert client.count_message_pages(campaign, run_number=1) == 3
        assert client.fetch_csv(campaign, 0, run_number=1) == first
        client.delete_customers(
            company.seeded.workspace_id, group, customers(60)["customer_id"].to_list()
        )
        client.publish(campaign)
        while client.count_message_pages(campaign) != 1:
            pass
        assert rfc4180.read(client.fetch_csv(campaign, 0).encode()).height == 60


def test_links_are_signed_by_s3(bucket: str, tmp_path: Path) -> None:
    with serving(Settings(data=tmp_path, exports=bucket)) as service:
        company = Company(service, seed.seed(service.context, 10))
        with company.client() as client:
            link = httpx.URL(client.fetch_link(company.seeded.campaign_id, 0).url)
    assert link.path.startswith("/exports/pages/")
    assert {"X-Amz-Signature", "Signature"} & {*link.params}
    assert httpx.get(link, headers={"range": "bytes=0-10"}).content == b"customer_id"


@pytest.mark.parametrize("kind", ["s3", "memory", "data folder"])
def test_interrupted_move_below_accounts_goes_on(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    urls = {"memory": "memory://moved", "data folder": str(tmp_path)}
    url = f"{request.getfixturevalue('bucket')}-moved" if kind == "s3" else urls[kind]
    files, names = PageFiles(url), [page_name(number) for number in range(4)]
    file_system, root = url_to_fs(url, use_listings_cache=False)
    # The first is moved, the second copied.
    for folder, there in ((f"{root}/campaign", names[1:]), (f"{root}/account/campaign", names[:2])):
        file_system.makedirs(f"{folder}/run-1", exist_ok=True)
        for name in there:
            file_system.pipe_file(f"{folder}/run-1/{name}", name.encode())
    for _ in range(2):
        files.move_below_accounts({"campaign": "account"})
        moved = RunFolder("account", "campaign", 1)
        assert files.names(moved) == names
        assert [files.read(moved, name).decode() for name in names] == names
        assert not file_system.exists(f"{root}/campaign")
