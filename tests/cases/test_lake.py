"""The lake: names of roots and campaigns, stores that refuse, files that are not what they seem."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import s3fs
from pydantic import ValidationError

from blocks import DataLake, FileCrm, HubSpotCrm, NudgescribeAccount
from blocks.crm.source import SourceError, SourceUnavailable
from blocks.storage.errors import LakeError, LakeUnreachable
from blocks.storage.files import Files
from tasks.export import run
from tasks.retention.rules import Ages
from tasks.retention.runs import run_candidates
from tests.cases import stores
from tests.cases.claims import claim, holder, open_campaigns
from tests.cases.judging import wrong
from tests.support.lakes import write_run

MANIFEST = "messages/campaign_id=C/run_number=2/_manifest-00000.json"
HEAD = ("exists", "read", "remove")
MOST_LOOKS = 50


@pytest.fixture(scope="module")
def store() -> Iterator[stores.Store]:
    with stores.serving() as store:
        yield store


@pytest.fixture(scope="module")
def refusing() -> Iterator[stores.Options]:
    with stores.refusing() as options, pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.core.S3FileSystem, "retries", 1)
        yield options


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    return DataLake(root=str(tmp_path / "lake"))


# ---- roots ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "other"),
    [
        wrong("crm[1]", "crm1", why="removes the other lake's file and keeps its own"),
        wrong("eu*", "eu1", why="removes the other lake's file, too"),
        wrong("solo[1]", "another", why="a raw FileNotFoundError"),
    ],
)
def test_root_is_no_pattern_or_is_refused(store: stores.Store, root: str, other: str) -> None:
    try:
        mine = store.lake(f"s3://lake/{root}").files
    except ValidationError:
        return
    theirs = store.lake(f"s3://lake/{other}").files
    for files in (mine, theirs):
        files.write(MANIFEST, b"")
    mine.remove(MANIFEST)
    assert theirs.exists(MANIFEST)
    assert not mine.exists(MANIFEST)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        wrong("My Lake", why="pl.scan_delta finds no files"),
        wrong("läke", why="pl.scan_delta finds no files"),
        wrong("a%20b", why="a raw DeltaError"),
    ],
)
def test_delta_lake_is_read_whatever_its_name_or_the_name_is_refused(
    name: str, tmp_path: Path
) -> None:
    try:
        lake = DataLake(root=str(tmp_path / name), format="delta")
    except ValidationError:
        return
    write_run(lake, "C", 1, {"1": "hello"})
    assert pl.scan_delta(lake.files.url("messages")).collect().height == 1


@pytest.mark.xfail(strict=True, reason="it lies wherever the process happens to be")
def test_relative_root_is_made_absolute_or_refused() -> None:
    try:
        lake = DataLake(root="lake")
    except ValidationError:
        return
    assert Path(lake.root).is_absolute()


ACCOUNT = {"email": "e", "password": "p", "api_key": "k", "api_code": "c"}
HUBSPOT = {"token": "t", "list_id": "1", "properties": ["email"]}


@pytest.mark.parametrize(
    ("block", "values"),
    [
        wrong(DataLake, {"root": "sftp://loader:pw@host/lake"}, why="kept in clear"),
        wrong(FileCrm, {"path": "sftp://loader:pw@host/list.csv"}, why="kept in clear"),
        wrong(NudgescribeAccount, {**ACCOUNT, "base_url": "http://a.example"}, why="sent in clear"),
        (HubSpotCrm, {**HUBSPOT, "base_url": "http://a.example"}),
    ],
)
def test_secret_in_clear_is_refused(block: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        block.model_validate(values)


def test_account_of_this_machine_needs_no_https() -> None:
    NudgescribeAccount.model_validate({**ACCOUNT, "base_url": "http://127.0.0.1:8000"})


# ---- stores -----------------------------------------------------------------------------------


CALLS: dict[str, Callable[[Files, Path], object]] = {
    "exists": lambda files, there: files.exists("x"),
    "read": lambda files, there: files.read("x"),
    "remove": lambda files, there: files.remove("x"),
    "names": lambda files, there: files.list_names("x"),
    "found": lambda files, there: list(files.list_files("x")),
    "write": lambda files, there: files.write("x", b"1"),
    "create": lambda files, there: files.create("x", b"1"),
    "get": lambda files, there: files.get("x", there),
}
TOKEN, REGION = "ExpiredToken", "AuthorizationHeaderMalformed"


@pytest.mark.parametrize(
    ("code", "call"),
    [
        *(wrong(TOKEN, each, why="a raw OSError") for each in HEAD),
        *(wrong(REGION, each, why="a raw OSError") for each in CALLS),
        *((TOKEN, each) for each in CALLS if each not in HEAD),
    ],
)
def test_old_token_or_wrong_region_is_told(
    refusing: stores.Options, code: str, call: str, tmp_path: Path
) -> None:
    files = Files(f"s3://400-{code}/lake", refusing)
    with pytest.raises(LakeError) as caught:
        CALLS[call](files, tmp_path / "x")
    said = str(caught.value)
    if call in HEAD:  # the store gives no code
        assert "400" in said
        assert "token" in said
        assert "region" in said
    else:
        assert code in said or "400" in said


@pytest.mark.parametrize(
    ("code", "kinds", "says"),
    [
        wrong("403-RequestTimeTooSkewed", (SourceError, LakeError), "clock", why="of keys"),
        wrong("400-AuthorizationHeaderMalformed", (SourceError, LakeError), "region", why="raw"),
        ("429-TooManyRequests", (SourceUnavailable, LakeUnreachable), ""),
        ("503-SlowDown", (SourceUnavailable, LakeUnreachable), ""),
    ],
)
def test_what_a_store_refuses_for_is_told_of_a_list_and_of_the_lake(
    refusing: stores.Options, code: str, kinds: tuple[type, type], says: str, tmp_path: Path
) -> None:
    crm = FileCrm.model_validate({"path": f"s3://{code}/x.csv", "storage_options": refusing})
    ways = (
        lambda: crm.extract(tmp_path / "list.parquet"),
        lambda: Files(f"s3://{code}", refusing).read("x"),
    )
    for kind, way in zip(kinds, ways, strict=True):
        with pytest.raises(kind) as caught:
            way()
        assert says in str(caught.value)


@pytest.mark.xfail(strict=True, reason="both have the campaign")
def test_store_without_exclusive_creation_is_refused_before_anything_is_claimed(
    store: stores.Store,
) -> None:
    lake = store.lake("s3://lake/ignoring")
    store.change = lambda request: request.pop("HTTP_IF_NONE_MATCH", None)
    try:
        with pytest.raises(LakeError, match="s3://lake/ignoring"):
            claim(lake, "C", "A")
    finally:
        store.change = lambda request: None


# ---- the register -----------------------------------------------------------------------------


@pytest.fixture
def no_endless_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks again and again is stopped."""
    looks, real = [0], Files.list_names

    def list_names(self: Files, folder: str) -> list[str]:
        looks[0] += 1
        assert looks[0] < MOST_LOOKS, "it looks for ever"
        return real(self, folder)

    monkeypatch.setattr(Files, "list_names", list_names)


@pytest.mark.timeout(30)
@pytest.mark.xfail(strict=True, reason="looks for ever")
def test_marker_of_a_folder_is_no_entry(store: stores.Store, no_endless_look: None) -> None:
    lake = store.lake("s3://lake/marked")
    claim(lake, "C", "A")
    store.put("marked/refreshes/campaign_id=C/")
    assert holder(lake, "C") == "A"
    assert open_campaigns(lake) == ["C"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        wrong("notes.txt", b"x", why="a raw ValueError"),
        wrong("00000001.json.bak", b"{}", why="a raw ValueError"),
        wrong("@eaDir", None, why="a raw IsADirectoryError"),
        (".DS_Store", b"x"),
        (".nfs000000000001", b"x"),
    ],
)
def test_what_is_no_entry_is_passed_over(
    lake: DataLake, name: str, content: bytes | None, no_endless_look: None
) -> None:
    claim(lake, "C", "A")
    beside = Path(lake.root, "refreshes/campaign_id=C", name)
    beside.mkdir() if content is None else beside.write_bytes(content)
    assert holder(lake, "C") == "A"
    assert open_campaigns(lake) == ["C"]


@pytest.mark.xfail(strict=True, reason="a raw ValidationError, for all campaigns")
@pytest.mark.parametrize("bytes_left", [0, 40])
def test_damaged_entry_is_told_and_stops_its_campaign_alone(
    lake: DataLake, bytes_left: int
) -> None:
    for campaign in ("good", "bad"):
        claim(lake, campaign, "A")
    (entry,) = Path(lake.root, "refreshes/campaign_id=bad").iterdir()
    entry.write_bytes(entry.read_bytes()[:bytes_left])
    with pytest.raises(LakeError, match="refreshes/campaign_id=bad/"):
        claim(lake, "bad", "B")
    assert "good" in open_campaigns(lake)


# ---- runs -------------------------------------------------------------------------------------


@pytest.fixture
def of_two(lake: DataLake) -> DataLake:
    """A lake with two runs of a campaign."""
    for number in (1, 2):
        write_run(lake, "C", number, {"1": f"run {number}"})
    return lake


def change(lake: DataLake, **values: object) -> None:
    file = Path(lake.root, MANIFEST)
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def texts(lake: DataLake, run: int | None = None) -> list[str]:
    frame = lake.read("C", run, "polars")
    assert isinstance(frame, pl.DataFrame)
    return frame["message"].to_list()


@pytest.mark.xfail(strict=True, reason="read as if it were of this version")
def test_manifest_of_a_later_version_is_refused(of_two: DataLake) -> None:
    change(of_two, schema_version=99, deleted_rows=[0])
    with pytest.raises(LakeError, match="99"):
        texts(of_two, 2)
    assert texts(of_two, 1) == ["run 1"]


@pytest.mark.xfail(strict=True, reason="a file outside of the lake is opened")
def test_part_outside_of_its_folder_is_refused(of_two: DataLake, tmp_path: Path) -> None:
    part = json.loads(Path(of_two.root, MANIFEST).read_text())["parts"][0]
    outside = os.path.relpath(tmp_path / "other.parquet", Path(of_two.root, MANIFEST).parent)
    pl.DataFrame({"customer_id": ["1"], "message": ["other"]}).write_parquet(
        tmp_path / "other.parquet"
    )
    change(of_two, parts=[{**part, "name": outside}])
    with pytest.raises(LakeError):
        texts(of_two, 2)


@pytest.mark.xfail(strict=True, reason="one bad manifest hides all runs", raises=LakeError)
def test_damaged_manifest_hides_no_other_run(of_two: DataLake) -> None:
    Path(of_two.root, MANIFEST).write_bytes(b"")
    with pytest.raises(LakeError, match=MANIFEST):
        texts(of_two, 2)
    assert of_two.runs()["run_number"].tolist() == [1]
    found = [*of_two.files.list_files("")]
    assert [*run_candidates(of_two.files, found, datetime.now(UTC), Ages(), {})] == []


@pytest.mark.xfail(strict=True, reason="a raw ValidationError, for ever", raises=ValidationError)
def test_damaged_pointer_is_made_anew(of_two: DataLake) -> None:
    Path(of_two.root, "messages/campaign_id=C/_latest.json").write_bytes(b"")
    manifest = of_two.manifest("C", 2)
    assert manifest is not None
    run._update_latest(of_two, manifest)
    assert texts(of_two) == ["run 2"]


@pytest.mark.xfail(strict=True, reason="back on run 2")
def test_pointer_never_goes_back(of_two: DataLake, monkeypatch: pytest.MonkeyPatch) -> None:
    real, second = run.find_latest_run, of_two.manifest("C", 2)
    assert second is not None

    def overtaken(files: Files, campaign_id: str) -> int | None:
        """A refresh ends with run 3 just after a fill of old runs has looked."""
        seen = real(files, campaign_id)
        monkeypatch.setattr(run, "find_latest_run", real)
        run._update_latest(of_two, write_run(of_two, "C", 3, {"1": "run 3"}))
        return seen

    monkeypatch.setattr(run, "find_latest_run", overtaken)
    run._update_latest(of_two, second)
    assert texts(of_two) == ["run 3"]


@pytest.mark.parametrize(
    "campaign_id",
    [
        *("../../etc", "..", ".", "a/b", "a%2Fb", "%2e%2e", "a=b", "a b", "a?b#c", "é", "x" * 200),
        wrong("日" * 60, why="a raw OSError: file name too long"),
    ],
)
@pytest.mark.parametrize("file_format", ["parquet", "delta"])
def test_campaign_of_any_id_has_its_place_or_is_refused(
    campaign_id: str, file_format: Any, tmp_path: Path
) -> None:
    lake = DataLake(root=str(tmp_path / "lake"), format=file_format)
    try:
        write_run(lake, campaign_id, 1, {"1": "hello"})
    except LakeError:
        assert len(campaign_id) == 60
        return
    frame = lake.read(campaign_id, kind="polars")
    assert isinstance(frame, pl.DataFrame)
    assert frame["message"].to_list() == ["hello"]
    assert [each.name for each in tmp_path.iterdir()] == ["lake"]
