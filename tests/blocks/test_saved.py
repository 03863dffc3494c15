"""Blocks as parameters: what is stored, what travels, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import cloudpickle
import httpx
import pyarrow as pa
import pytest
from prefect import flow, task
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from blocks import Crm, CrmSource, DataLake, FileCrm, NudgescribeAccount, SqlCrm
from blocks.crm import SOURCES
from blocks.saved import (
    BlockInvalid,
    BlockNotFound,
    BlockNotSaved,
    SavedBlock,
    load_by_name,
    slug_reference,
)
from tests.conftest import Company, Save, Saved, customers


class FifthCrm(CrmSource):
    """A source that forms do not know."""

    _block_type_name = "Fifth CRM"

    path: str

    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        return iter([])


@flow
def taking(account: NudgescribeAccount, crm: Crm, lake: DataLake) -> str:
    return str(flow_run.id)


@pytest.fixture
def saved(company: Company, save: Save) -> Saved:
    return save(company, customers(1))


def validated(saved: Saved, **changes: Any) -> dict[str, Any]:
    return taking.validate_parameters({**saved.blocks, **changes})


def secrets_of(company: Company) -> list[str]:
    seeded = company.seeded
    return [seeded.password, seeded.api_key, seeded.api_code, seeded.profile_key]


# ---- what is stored ---------------------------------------------------------------------------


def run_of(run_id: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id)


def test_parameters_of_saved_blocks_are_stored_as_references(saved: Saved) -> None:
    stored = run_of(taking(**saved.blocks)).parameters
    assert stored == saved.references
    assert list(stored["account"]) == ["$ref"]
    assert run_of(taking(**stored)).parameters == stored


def test_parameters_of_unsaved_blocks_work_and_are_stored_with_secrets_masked(
    prefect_server: None, company: Company, tmp_path: Path
) -> None:
    lake = DataLake.model_validate(
        {"root": str(tmp_path), "storage_options": {"key": "canary", "secret": "canary"}}
    )
    crm = SqlCrm.model_validate({"url": "postgresql://me:canary@crm/crm", "query": "SELECT 1"})
    stored = run_of(taking(company.account(), crm, lake)).parameters
    assert stored["account"]["email"] == company.seeded.email
    assert {*stored["account"]["password"]} == {"*"}
    assert not [one for one in ("canary", *secrets_of(company)) if one in str(stored)]


def test_changed_block_is_not_taken_for_the_saved_one(prefect_server: None, tmp_path: Path) -> None:
    saved, other = DataLake(root=str(tmp_path)), str(tmp_path / "other")
    saved.save("changing")
    copied, reset = saved.model_copy(update={"root": other}), saved.model_copy()
    assert reset.to_reference() == saved.to_reference()
    reset.root = other
    for lake in (copied, reset):
        with pytest.raises(BlockNotSaved, match="This DataLake block is not saved"):
            lake.to_reference()
        assert cloudpickle.loads(cloudpickle.dumps(lake)).root == other
        lake.save("changing", overwrite=True)
        assert lake.to_reference() == saved.to_reference()


def test_saved_block_is_saved_again_with_its_secrets(
    prefect_server: None, company: Company
) -> None:
    account = company.account()
    account.save("again")
    account.client_ip = "192.0.2.1"
    account.save("again", overwrite=True)
    loaded = NudgescribeAccount.load("again")
    assert loaded.client_ip == "192.0.2.1"
    assert loaded.password.get_secret_value() == company.seeded.password


# ---- what travels -----------------------------------------------------------------------------


@pytest.fixture
def pickled(saved: Saved) -> bytes:
    """What a machine of a cluster gets for `fetch_chunk`."""
    return cloudpickle.dumps({"account": saved.account, "lake": saved.lake, "first": 0})


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the blocks that are loaded."""
    seen: list[str] = []
    real = Block._get_block_document_by_id_sync.__func__

    def counted(cls: type[Block], document_id: object, **options: Any) -> Any:
        seen.append(str(document_id))
        return real(cls, document_id, **options)

    monkeypatch.setattr(Block, "_get_block_document_by_id_sync", classmethod(counted))
    return seen


def test_pickled_block_holds_no_secret_and_calls_nobody(
    pickled: bytes, saved: Saved, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saved.name.encode() in pickled
    hidden = [*secrets_of(company), str(saved.root)]
    assert not [one for one in hidden if one.encode() in pickled]
    called = Mock(side_effect=AssertionError("Prefect was called."))
    monkeypatch.setattr(httpx.Client, "send", called)
    monkeypatch.setattr(httpx.AsyncClient, "send", called)
    there = cloudpickle.loads(pickled)
    assert there["account"].block_name == saved.name
    assert there["lake"].to_reference() == saved.lake.to_reference()
    # Nor does what is passed on.
    assert cloudpickle.loads(cloudpickle.dumps(there))["lake"].block_name == saved.name


@task
def resolve(account: NudgescribeAccount, lake: DataLake, first: int) -> tuple[str, str]:
    return account.resolve().password.get_secret_value(), lake.resolve().root


@flow
def cluster(content: bytes) -> list[tuple[str, str]]:
    return [resolve(**cloudpickle.loads(content)) for _ in range(3)]


def test_unpickled_block_is_loaded_once_per_process_and_flow_run(
    pickled: bytes, saved: Saved, company: Company, loads: list[str]
) -> None:
    # Only what was unpickled is loaded.
    assert saved.account.resolve() is saved.account
    assert loads == []
    assert cluster(pickled) == [(company.seeded.password, str(saved.root))] * 3
    assert sorted(loads) == sorted(
        str(block._block_document_id) for block in (saved.account, saved.lake)
    )
    company.account(password="rotated").save(saved.name, overwrite=True)
    assert cluster(pickled) == [("rotated", str(saved.root))] * 3
    assert len(loads) == 4


@flow(retries=1)
def begun_twice(content: bytes, account: NudgescribeAccount) -> str:
    """A password that is changed between two starts of a flow run."""
    password, _ = resolve(**cloudpickle.loads(content))
    if password != "rotated":
        name = account.block_name
        account.model_copy(update={"password": "rotated"}).save(name, overwrite=True)
        raise ValueError("Begin anew.")
    return password


def test_unpickled_block_is_loaded_anew_when_its_flow_run_begins_anew(
    pickled: bytes, saved: Saved
) -> None:
    assert begun_twice(pickled, saved.account) == "rotated"


def test_deleted_block_is_named(prefect_server: None, tmp_path: Path) -> None:
    lake = DataLake(root=str(tmp_path))
    lake.save("deleted")
    travelled = cloudpickle.loads(cloudpickle.dumps(lake))
    DataLake.delete("deleted")
    with pytest.raises(BlockNotFound, match="The saved DataLake block .* is gone"):
        travelled.resolve()


def test_block_that_was_saved_with_wrong_field_is_refused(saved: Saved) -> None:
    """The UI saves whatever is typed in."""
    travelled = cloudpickle.loads(cloudpickle.dumps(saved.lake))
    wrong = saved.lake.model_copy(update={"root": "s3://key:s3cret@lake"})
    wrong.save(saved.name, overwrite=True)
    for load in (travelled.resolve, lambda: DataLake.from_name(saved.name)):
        with pytest.raises(BlockInvalid, match="root .* storage_options") as caught:
            load()
        assert "s3cret" not in str(caught.value)


def test_unsaved_block_is_pickled_with_its_secrets(company: Company) -> None:
    account = cloudpickle.loads(cloudpickle.dumps(company.account()))
    assert account == company.account()
    assert account.resolve() is account


# ---- what is taken ----------------------------------------------------------------------------


def test_names_and_slugs_of_blocks_are_accepted(saved: Saved) -> None:
    names = {"account": saved.name, "crm": f"file-crm/{saved.name}", "lake": saved.name}
    slugs = {name: slug_reference(block.block_slug) for name, block in saved.blocks.items()}
    for given in (names, slugs):
        taken = validated(saved, **given)
        assert {name: block.to_reference() for name, block in taken.items()} == saved.references
        assert taken["crm"].path == str(saved.crm_file)
    assert DataLake.model_validate(slugs["lake"]).to_reference() == saved.lake.to_reference()
    with pytest.raises(ValidationError, match="DataLake"):
        DataLake.model_validate(slugs["account"])


def test_source_unknown_to_forms_is_accepted(saved: Saved) -> None:
    fifth = FifthCrm(path="customers.csv")
    fifth.save(saved.name, overwrite=True)
    for crm in (fifth, fifth.to_reference(), fifth.block_slug):
        taken = validated(saved, crm=crm)["crm"]
        assert isinstance(taken, FifthCrm)
        assert taken.path == "customers.csv"


def test_parameter_that_names_no_such_block_is_refused(saved: Saved) -> None:
    for lake in (saved.lake, saved.lake.to_reference(), saved.lake.block_slug):
        with pytest.raises(ParameterTypeError, match="crm"):
            validated(saved, crm=lake)
    for parameter, name in (("account", "no"), ("crm", "file-crm/no"), ("lake", "no")):
        with pytest.raises(BlockNotFound, match=f"There is no saved .* block '{name}'"):
            validated(saved, **{parameter: name})
    gone = {"$ref": {"block_document_id": str(uuid4())}}
    with pytest.raises(BlockNotFound, match="is gone"):
        DataLake.model_validate(gone)
    with pytest.raises(ParameterTypeError):
        validated(saved, lake=gone)


def test_missing_block_is_told_with_those_that_are_saved(saved: Saved) -> None:
    wrong = f"{saved.name}x"
    cases = {"account": wrong, "crm": f"sql-crm/{saved.name}", "lake": wrong}
    for parameter, name in cases.items():
        meant = saved.blocks[parameter].block_slug
        with pytest.raises(BlockNotFound, match=f" Saved are: .* Is {meant} meant?"):
            validated(saved, **{parameter: name})
    with pytest.raises(BlockNotFound, match=f"no saved block data-lake/{wrong}. Saved are: .*Is "):
        DataLake.model_validate(slug_reference(f"data-lake/{wrong}"))
    with pytest.raises(BlockNotFound, match="Saved are: data-lake/"):
        DataLake.model_validate(slug_reference("data-lake"))


class ManyBlocks(SavedBlock):
    """A block of which many are saved."""


class NoBlocks(SavedBlock):
    """A block of which none is saved."""


def test_at_most_ten_saved_blocks_are_told_the_likely_one_among_them(prefect_server: None) -> None:
    with pytest.raises(BlockNotFound, match="block 'main'. None is saved. Look"):
        load_by_name("main", NoBlocks)
    for number in range(12):
        ManyBlocks().save(f"block-{number:02}", overwrite=True)
    ManyBlocks().save("last", overwrite=True)
    with pytest.raises(BlockNotFound) as caught:
        load_by_name("lost", ManyBlocks)
    told = caught.value.problem.partition("Saved are: ")[2]
    assert told.startswith("manyblocks/last, manyblocks/block-00, ")
    assert told.endswith("manyblocks/block-08 and 3 more. Is manyblocks/last meant?")


def test_form_has_a_picker_for_each_kind_of_block() -> None:
    schema = parameter_schema(taking).model_dump()
    slugs = {
        name: each["block_type_slug"]
        for name, each in schema["definitions"].items()
        if "block_type_slug" in each
    }
    offered = [each["$ref"].rpartition("/")[2] for each in schema["properties"]["crm"]["anyOf"]]
    assert [slugs[each] for each in offered] == [each.get_block_type_slug() for each in SOURCES]
    assert slugs["DataLake"] == "data-lake"
    assert FileCrm.__name__ in offered
