"""Which paths and URLs blocks take: absolute ones without secrets."""

from typing import Any

import pytest
from pydantic import ValidationError

from blocks import DataLake, FileCrm, SqlCrm
from blocks.saved import SavedBlock

RELATIVE = "must be an absolute path"
SECRET = "put it into storage_options"


@pytest.mark.parametrize(
    "root",
    [
        "/lake",
        "/lake/../other",
        "file:///lake",
        "s3://lake",
        "s3://lake/crm/",
        "s3://lake/my crm/läke%20#1",
        "s3://arn:aws:s3:us-west-2:1:accesspoint/lake/crm",
        "abfss://container@account.dfs.core.windows.net/lake",
        "sftp://loader@host:22/lake",
    ],
)
def test_root_of_lake_is_taken_as_it_is(root: str) -> None:
    assert DataLake(root=root).root == root


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        *((root, RELATIVE) for root in ("", "lake", "./lake", "~", "~/lake", "C:\\lake")),
        *((root, RELATIVE) for root in ("file://lake", "file:lake", "local://lake", "s3:/lake")),
        ("s3://", "names nothing behind s3://"),
        ("FILE:///lake", "a protocol in capitals"),
        ("s3://key:s3cret@lake/crm", SECRET),
        ("s3://AKIA:s3c/ret@lake/crm", SECRET),
        ("s3://s3cret@lake/crm", SECRET),
        ("sftp://loader:s3cret@host/lake", SECRET),
        ("s3://lake/crm?secret=s3cret", SECRET),
        ("/lake ", "begins or ends with a blank"),
        ("/la\u200bke", "does not show"),
        ("/la\0ke", "does not show"),
        *((f"s3://lake/crm{sign}", "holds ") for sign in ("[1]", "*", "?", "{a}")),
        ("simplecache::s3://lake/crm", "holds ::"),
        *((f"s3://lake/{names}", "between its slashes") for names in ("/crm", "../crm", "./crm")),
    ],
)
def test_root_of_lake_is_refused(root: str, problem: str) -> None:
    said = refusal(DataLake, root=root)
    assert problem in said
    assert "s3cret" not in said


@pytest.mark.parametrize("name", ["my lake", "läke", "a%20b", "a#b", "a=b", "a\\b"])
def test_root_is_refused_for_delta_only(name: str) -> None:
    assert DataLake(root=f"/{name}").root == f"/{name}"
    assert "Delta" in refusal(DataLake, root=f"/{name}", format="delta")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/data/list-?.csv", None),
        ("s3://crm/a&key=1;token=2/list.csv", None),
        ("zip://list.csv::/data/lists.zip", None),
        ("https://host/list.csv?gid=0&keyword=a&author=b&token=", None),
        ("list.csv", RELATIVE),
        ("zip://list.csv::lists.zip", RELATIVE),
        ("https://host/list.csv?zip_code=1&pinned=2&sasha=3;country-code=de", None),
        ("https://host/list.csv?sort_key=a&partition_key=b&secretary=c&code=DE&tokens=3", None),
        ("https://[2001:db8::1]:8080/me@home/list.csv?page=1", None),
        ("https://[2001:db8::1]/list.csv?api_key=s3cret", SECRET),
        ("zip://list.csv::https://[::1]/lists.zip?token=s3cret", SECRET),
        ("https://host/list.csv?code=s3cret-of-an-azure-function", SECRET),
        ("ZIP://list.csv::/data/lists.zip", "a protocol in capitals"),
        ("https://user:s3cret@host/list.csv", SECRET),
        ("HTTPS://s3cret@host/list.csv", SECRET),
        ("https://host/list.csv;token=s3cret", SECRET),
        ("https://host/list.csv;jsessionid=s3cret?a=1", SECRET),
        ("https://user:s3c?ret@host/list.csv", SECRET),
        ("https://user:3#s3cret@host/list.csv", SECRET),
        ("https://host:8080/me@home/list.csv?mail=a@b", None),
        ("https://s3cret@host/list.csv", SECRET),
        ("ftp://user:s3cret@host/list.csv", SECRET),
        ("zip://list.csv::https://user:s3cret@host/lists.zip", SECRET),
        *(
            (f"https://host/list.csv?a=1&{name}=s3cret", SECRET)
            for name in (
                *("X-Amz-Signature", "sig", "access_token", "api_key", "Key", "pass%77ord"),
                *("X-Amz-Security-Token", "clientSecret", "AWSAccessKeyId", "x-functions-key"),
                *("jwt", "pw", "sas", "passphrase", "passcode", "bearer", "sessionid"),
            )
        ),
    ],
)
def test_path_of_list_is_checked(path: str, problem: str | None) -> None:
    if problem is None:
        assert FileCrm(path=path).path == path
    else:
        said = refusal(FileCrm, path=path)
        assert problem in said
        assert "s3cret" not in said


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("sqlite://", False),
        ("sqlite:///:memory:", False),
        ("sqlite:////data/crm.db", False),
        ("sqlite:///file:/data/crm.db?uri=true", False),
        ("postgresql://loader:s3cret@host/crm", False),
        ("postgresql://loader:s3c:ret@host:port/crm", False),  # told when it is used
        ("sqlite:///crm.db", True),
        ("sqlite:///~/crm.db", True),
        ("sqlite+pysqlite:///crm.db", True),
        ("sqlite:///file:crm.db?uri=true", True),
        ("duckdb:///crm.duckdb", True),
    ],
)
def test_database_that_is_a_file_needs_absolute_path(url: str, refused: bool) -> None:
    if refused:
        assert "must name the file by an absolute path" in refusal(SqlCrm, url=url, query="")
    else:
        SqlCrm.model_validate({"url": url, "query": ""})


def refusal(kind: type[SavedBlock], **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    return str(caught.value)
